//! Served models: peers that are judged on the same questions, and models that judge.
//!
//! The client is the crate `opabinia-endpoint`; [`Judge`] is the evaluation's.

pub use crate::judge::{Ask, Grading, Judge, LocalJudge};
pub use opabinia_endpoint::{
    AnswerForm, ChatAnswer, ChatRequest, Endpoint, EndpointError, EndpointOptions, Exchange,
    TokenLimit,
};
