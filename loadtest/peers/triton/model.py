"""The model as Triton's Python backend loads it, in a process an instance."""

from typing import Any

import numpy as np
import triton_python_backend_utils as backend
from scorer import Scorer


class TritonPythonModel:
    """Scores the rows of the input `ids`."""

    def initialize(self, _: dict[str, str]) -> None:
        """Loads the model."""
        self.scorer = Scorer()

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request, of all in one run."""
        inputs = [backend.get_input_tensor_by_name(request, "ids").as_numpy() for request in requests]
        scores = self.scorer.run(np.concatenate(inputs)).reshape(-1, 1)
        ends = np.cumsum([len(rows) for rows in inputs])
        outputs = [backend.Tensor("probability", part) for part in np.split(scores, ends[:-1])]
        return [backend.InferenceResponse([output]) for output in outputs]
