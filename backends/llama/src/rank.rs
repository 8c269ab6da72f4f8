//! `hearth.rank/1`: models with pooling `rank`, and the form in which llama-server gives them a question and a text.

use crate::model::LlamaModel;
use crate::shim::error;
use hearth_abi::author::RankModel;
use hearth_abi::raw::Token;
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::CStr;

impl RankModel for LlamaModel {
    fn tokenize_pair(&self, query: &str, text: &str) -> Result<Vec<Token>> {
        if !self.traits().ranks() {
            return Err(error(Status::Unsupported, "the model ranks no texts"));
        }
        let vocab = self.vocab();
        // SAFETY: the model is loaded, and its template lives as long.
        let template = unsafe {
            let template = sys::llama_model_chat_template(self.raw(), c"rerank".as_ptr());
            (!template.is_null()).then(|| CStr::from_ptr(template).to_string_lossy().into_owned())
        };
        if let Some(template) = template {
            // One after the other, so that a question that says `{document}` is no place for one.
            let fill = |part: &str| part.replace("{document}", text);
            let parts: Vec<String> = template.split("{query}").map(fill).collect();
            return vocab.tokenize(parts.join(query).as_bytes(), false, true);
        }
        let [query, text] = [query, text].map(|text| vocab.tokenize(text.as_bytes(), false, false));
        let marks = vocab.pair_marks();
        Ok([&marks.begin[..], &query?, &marks.between, &text?, &marks.end].concat())
    }
}
