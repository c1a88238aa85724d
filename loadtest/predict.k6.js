// Open loop for k6: so many predictions a second, whether or not the answers come in time.
//
//   k6 run -e URL=http://127.0.0.1:8000/api/predict/recommendation_model loadtest/predict.k6.js
//
// RATE (a second), DURATION, USERS and ITEMS can be set in the same way. k6 itself takes several cores at 10,000 a
// second: where it shares them with the server it falls behind, says so by `dropped_iterations`, and fails.
import http from "k6/http";
import { check } from "k6";

const url = __ENV.URL || "http://127.0.0.1:8000/api/predict/recommendation_model";
const users = Number(__ENV.USERS || 1000);
const items = Number(__ENV.ITEMS || 800);

export const options = {
  scenarios: {
    predict: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 10000),
      timeUnit: "1s",
      duration: __ENV.DURATION || "20s",
      preAllocatedVUs: 200,
      maxVUs: 1000,
    },
  },
  thresholds: {
    http_req_failed: ["rate==0"],
    http_req_duration: ["p(99)<200"],
    checks: ["rate==1"],
    dropped_iterations: ["count==0"],
  },
};

const draw = (n) => 1 + Math.floor(Math.random() * n);

export default function () {
  const body = JSON.stringify({ input: [[draw(users), draw(items)]] });
  const answer = http.post(url, body, { headers: { "content-type": "application/json" } });
  check(answer, {
    "one probability": (a) => {
      const output = a.status === 200 ? a.json("output") : [];
      return output.length === 1 && output[0] >= 0 && output[0] <= 1;
    },
  });
}
