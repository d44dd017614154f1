//! What all connections together hold of requests and answers.
//!
//! Not the choice who is refused or ended: that is `http`'s. Invariant: the sums are those of the connections' holdings,
//! as they were last told.

/// The bytes of unfinished requests that all connections may hold together: 64 of the largest bodies.
const REQUESTS_BYTES_MAX: usize = 16 << 20;
/// The bytes of unread answers that all connections may hold together. More than the largest answer.
const ANSWERS_BYTES_MAX: usize = 96 << 20;

/// The bytes that one connection holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Holding {
    /// Of a request that is not whole: what has come of its head, and all that its body may be.
    pub request: usize,
    /// Of answers that the client has not taken.
    pub answer: usize,
}

#[derive(Debug, Default)]
pub struct Budget {
    total: Holding,
}

impl Budget {
    /// Puts one holding of a connection for another.
    pub fn replace(&mut self, old: Holding, new: Holding) {
        self.total.request = self.total.request + new.request - old.request;
        self.total.answer = self.total.answer + new.answer - old.answer;
    }

    pub fn has_too_many_requests(&self) -> bool {
        REQUESTS_BYTES_MAX < self.total.request
    }

    pub fn has_too_many_answers(&self) -> bool {
        ANSWERS_BYTES_MAX < self.total.answer
    }

    pub fn total(&self) -> Holding {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ANSWER_BYTES_MAX;
    use crate::wire::http::BODY_BYTES_MAX;

    #[test]
    fn each_sum_has_its_edge() {
        let mut budget = Budget::default();
        let full = Holding { request: REQUESTS_BYTES_MAX, answer: ANSWERS_BYTES_MAX };
        budget.replace(Holding::default(), full);
        assert!(!budget.has_too_many_requests() && !budget.has_too_many_answers());
        budget.replace(full, Holding { request: full.request + 1, ..full });
        assert!(budget.has_too_many_requests() && !budget.has_too_many_answers());
        budget.replace(Holding { request: 1, answer: 0 }, Holding { request: 0, answer: 1 });
        assert!(!budget.has_too_many_requests() && budget.has_too_many_answers());
        assert_eq!(REQUESTS_BYTES_MAX, 64 * BODY_BYTES_MAX);
        const { assert!(ANSWER_BYTES_MAX < ANSWERS_BYTES_MAX, "one client alone is never cut") };
    }
}
