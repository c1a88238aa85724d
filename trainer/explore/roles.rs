//! Which column says who, what, when and how it ended: as the command line or the pipeline names them, or else
//! guessed from the columns' names.

use serde::Serialize;

use crate::config::DataConfig;

/// What a column means to a ranking model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Who.
    User,
    /// What.
    Item,
    /// What people call the item.
    Title,
    /// When.
    Time,
    /// What happened: seen, bought.
    Event,
    /// Whether it happened: a column of two values.
    Label,
    /// The kind of item.
    Category,
}

/// The column of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleColumn {
    /// The role.
    pub role: Role,
    /// The column.
    pub column: String,
    /// Who says so.
    pub source: Source,
}

/// Who gave a column its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The command line.
    Given,
    /// The pipeline.
    Pipeline,
    /// Its name.
    Guessed,
}

/// The columns of the roles, one a role at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(Vec<RoleColumn>);

impl Role {
    /// Every role, in the order of the report.
    pub const ALL: [Self; 7] =
        [Self::User, Self::Item, Self::Title, Self::Time, Self::Event, Self::Label, Self::Category];

    /// The role's name, which is also its flag on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Item => "item",
            Self::Title => "title",
            Self::Time => "time",
            Self::Event => "event",
            Self::Label => "label",
            Self::Category => "category",
        }
    }

    /// Names of columns that mean this role, without what is neither a letter nor a digit, the surest first.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let names = match self {
            Self::User => USER_NAMES,
            Self::Item => ITEM_NAMES,
            Self::Title => TITLE_NAMES,
            Self::Time => TIME_NAMES,
            Self::Event => EVENT_NAMES,
            Self::Label => LABEL_NAMES,
            Self::Category => CATEGORY_NAMES,
        };
        names.split_whitespace()
    }
}

impl Roles {
    /// No roles.
    pub fn new() -> Self {
        Self::default()
    }

    /// The roles that a pipeline gives.
    pub fn of_pipeline(data: &DataConfig) -> Self {
        let mut roles = Self::new();
        let given = [
            (Role::User, &data.user),
            (Role::Item, &data.item),
            (Role::Time, &data.time),
            (Role::Label, &data.label),
        ];
        for (role, column) in given {
            if let Some(column) = column {
                roles.set(role, column, Source::Pipeline);
            }
        }
        roles
    }

    /// Gives `role` to `column`, and to no other.
    pub fn set(&mut self, role: Role, column: &str, source: Source) {
        self.remove(role);
        self.0.push(RoleColumn { role, column: column.to_owned(), source });
        self.0.sort_by_key(|found| found.role);
    }

    /// Takes `role` from its column.
    pub fn remove(&mut self, role: Role) {
        self.0.retain(|found| found.role != role);
    }

    /// Fills the roles that no column has from the names of `columns`. A column is guessed to have one role only.
    pub fn guess(&mut self, columns: &[String]) {
        for role in Role::ALL {
            if self.get(role).is_some() {
                continue;
            }
            let free = |column: &&String| self.0.iter().all(|found| found.column != **column);
            let rank = |column: &String| role.names().position(|name| name == bare(column));
            let ranked = columns.iter().filter(free).filter_map(|column| Some((rank(column)?, column)));
            if let Some((_, column)) = ranked.min_by_key(|&(rank, _)| rank) {
                let column = column.clone();
                self.set(role, &column, Source::Guessed);
            }
        }
    }

    /// The column of `role`.
    pub fn get(&self, role: Role) -> Option<&RoleColumn> {
        self.0.iter().find(|found| found.role == role)
    }

    /// The name of the column of `role`.
    pub fn column(&self, role: Role) -> Option<&str> {
        self.get(role).map(|found| found.column.as_str())
    }

    /// Whether `role` was only guessed.
    pub fn is_guess(&self, role: Role) -> bool {
        self.get(role).is_some_and(|found| found.source == Source::Guessed)
    }

    /// Whether `column` has a role that is one of `roles`.
    pub fn is_one_of(&self, column: &str, roles: &[Role]) -> bool {
        roles.iter().any(|&role| self.column(role) == Some(column))
    }

    /// The roles that columns have, in the order of [`Role::ALL`].
    pub fn all(&self) -> &[RoleColumn] {
        &self.0
    }
}

/// A column's name without what is neither a letter nor a digit, in lower case.
pub fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

const USER_NAMES: &str = "\
    userid customerid visitorid clientid memberid buyerid shopperid accountid customerno customernumber \
    userno user customer visitor client uid";
const ITEM_NAMES: &str = "\
    itemid productid stockcode sku skuid articleid movieid songid contentid listingid goodsid bookid \
    productcode itemcode asin item product article iid";
const TITLE_NAMES: &str = "\
    title itemname productname itemtitle producttitle articlename productdescription itemdescription \
    description";
const TIME_NAMES: &str = "\
    timestamp eventtime eventtimestamp datetime time invoicedate orderdate eventdate purchasedate \
    transactiondate createdat occurredat date ts at";
const EVENT_NAMES: &str = "\
    eventtype event eventname action actiontype behavior behaviour behaviortype behaviourtype \
    interaction interactiontype";
const LABEL_NAMES: &str = "\
    label clicked click isclick isclicked purchased ispurchased bought converted conversion target";
const CATEGORY_NAMES: &str = "\
    category categoryid categorycode categoryname itemcategory productcategory producttype department \
    section genre genres";

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(columns: &[&str]) -> Vec<(Role, String)> {
        let mut roles = Roles::new();
        roles.guess(&columns.iter().map(|&column| column.to_owned()).collect::<Vec<_>>());
        assert!(roles.all().iter().all(|found| found.source == Source::Guessed));
        roles.all().iter().map(|found| (found.role, found.column.clone())).collect()
    }

    #[test]
    fn the_columns_of_well_known_logs_are_recognised() {
        let retail =
            ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID"];
        let expected = [
            (Role::User, "Customer ID"),
            (Role::Item, "StockCode"),
            (Role::Title, "Description"),
            (Role::Time, "InvoiceDate"),
        ];
        assert_eq!(guessed(&retail), expected.map(|(role, name)| (role, name.to_owned())));
        let shop = ["event_time", "event_type", "product_id", "category_id", "category_code", "user_id"];
        let expected = [
            (Role::User, "user_id"),
            (Role::Item, "product_id"),
            (Role::Time, "event_time"),
            (Role::Event, "event_type"),
            (Role::Category, "category_id"),
        ];
        assert_eq!(guessed(&shop), expected.map(|(role, name)| (role, name.to_owned())));
        assert_eq!(guessed(&["age", "education", "Salary"]), []);
    }

    #[test]
    fn the_surer_name_wins_and_what_is_given_stays() {
        assert_eq!(guessed(&["date", "timestamp"]), [(Role::Time, "timestamp".to_owned())]);
        let mut roles = Roles::new();
        roles.set(Role::Item, "user_id", Source::Given);
        roles.guess(&["user_id".to_owned(), "item_id".to_owned()]);
        assert_eq!((roles.column(Role::Item), roles.column(Role::User)), (Some("user_id"), None));
        assert!(!roles.is_guess(Role::Item));
    }
}
