//! What each user may do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::options::{Operation, Pattern, Rule};

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Nobody asked. Only clients of this machine are, unless the operator said otherwise.
    Anonymous,
    /// Has a certificate of an authority that is trusted, and nobody asked for more.
    Certificate,
    /// Has logged in.
    User(Arc<str>),
}

/// To what something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
    Cluster,
}

/// The rules, by user.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Nobody made any: everybody may do everything.
    open: bool,
    everybody: Vec<Rule>,
    users: HashMap<Arc<str>, Vec<Rule>>,
}

impl Access {
    pub fn new(rules: &[Rule]) -> Self {
        let mut access = Self {
            open: rules.is_empty(),
            ..Self::default()
        };
        for rule in rules {
            for user in &rule.users {
                match user.as_str() {
                    "*" => access.everybody.push(rule.clone()),
                    name => access
                        .users
                        .entry(name.into())
                        .or_default()
                        .push(rule.clone()),
                }
            }
        }
        access
    }

    /// Whether somebody may.
    pub fn allows(&self, who: &Principal, operation: Operation, to: Resource<'_>) -> bool {
        self.open
            || self
                .rules(who)
                .any(|rule| rule.allows(operation) && rule.is_about(to))
    }

    fn rules(&self, who: &Principal) -> impl Iterator<Item = &Rule> {
        let own = match who {
            Principal::User(name) => self.users.get(name).map_or(&[][..], Vec::as_slice),
            Principal::Certificate | Principal::Anonymous => &[],
        };
        own.iter().chain(&self.everybody)
    }
}

impl Rule {
    fn allows(&self, operation: Operation) -> bool {
        self.allow.iter().any(|allowed| allowed.covers(operation))
    }

    fn is_about(&self, resource: Resource<'_>) -> bool {
        let any = |patterns: &[Pattern], name| patterns.iter().any(|p| p.matches(name));
        match resource {
            Resource::Topic(name) => any(&self.topics, name),
            Resource::Group(name) => any(&self.groups, name),
            Resource::TransactionalId(name) => any(&self.transactional_ids, name),
            Resource::Cluster => self.cluster,
        }
    }
}

/// As Kafka writes it.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("User:ANONYMOUS"),
            Self::Certificate => f.write_str("User:CERTIFICATE"),
            Self::User(name) => write!(f, "User:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(users: &[&str], allow: &[Operation], topics: &[&str]) -> Rule {
        Rule {
            users: users.iter().map(|u| (*u).to_owned()).collect(),
            allow: allow.to_vec(),
            topics: topics.iter().map(|t| Pattern::from(*t)).collect(),
            ..Rule::default()
        }
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.into())
    }

    #[test]
    fn without_rules_everybody_may_do_everything() {
        let access = Access::new(&[]);
        assert!(access.allows(&Principal::Anonymous, Operation::Delete, Resource::Cluster));
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let access = Access::new(&[
            rule(&["shop"], &[Operation::Write], &["orders.*", "audit"]),
            rule(&["*"], &[Operation::Describe], &["*"]),
        ]);
        let allows = |who: &str, operation, topic| {
            access.allows(&user(who), operation, Resource::Topic(topic))
        };
        assert!(allows("shop", Operation::Write, "orders.placed"));
        assert!(allows("shop", Operation::Write, "audit"));
        assert!(!allows("shop", Operation::Write, "orders"));
        assert!(!allows("shop", Operation::Write, "audits"));
        assert!(!allows("shop", Operation::Read, "orders.placed"));
        assert!(!allows("mail", Operation::Write, "orders.placed"));
        assert!(allows("mail", Operation::Describe, "orders.placed"));
        assert!(!access.allows(&user("shop"), Operation::Write, Resource::Group("orders.x")));
        assert!(!access.allows(&user("shop"), Operation::Write, Resource::Cluster));
        let certified = Principal::Certificate;
        assert!(access.allows(&certified, Operation::Describe, Resource::Topic("orders")));
        assert!(!access.allows(&certified, Operation::Write, Resource::Topic("audit")));
    }

    #[test]
    fn who_may_do_something_to_a_topic_may_see_it() {
        for operation in [
            Operation::Read,
            Operation::Write,
            Operation::Delete,
            Operation::All,
        ] {
            let access = Access::new(&[rule(&["a"], &[operation], &["t"])]);
            assert!(access.allows(&user("a"), Operation::Describe, Resource::Topic("t")));
        }
        let access = Access::new(&[rule(&["a"], &[Operation::Create], &["t"])]);
        assert!(!access.allows(&user("a"), Operation::Describe, Resource::Topic("t")));
    }
}
