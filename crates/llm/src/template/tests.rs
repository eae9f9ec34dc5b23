use super::*;

fn template(name: &str) -> &'static ChatTemplate {
    ChatTemplate::by_name(name).unwrap()
}

fn finished() -> Conversation {
    Conversation::new(vec![Turn::user("Hi"), Turn::assistant("Yes.")])
}

#[test]
fn vicuna_by_hand() {
    let conversation = Conversation {
        system: Some("S.".to_owned()),
        ..finished()
    };
    let prompt = template("vicuna_v1").render(&conversation).unwrap();
    assert_eq!(prompt.text, "S. USER: Hi ASSISTANT: Yes.</s>");
    assert_eq!(&prompt.text[prompt.answers[0].clone()], " Yes.</s>");
}

#[test]
fn a_replaced_system_text_keeps_its_markup() {
    let conversation = Conversation {
        system: Some("S.".to_owned()),
        ..finished()
    };
    let prompt = template("chatml_direct").render(&conversation).unwrap();
    assert!(
        prompt
            .text
            .starts_with("<|im_start|>system\nS.<|im_end|><|im_start|>user\nHi")
    );
}

/// What the assistant must produce is what follows the prompt that asks for it.
#[test]
fn an_answer_continues_the_open_prompt() {
    for name in ChatTemplate::names()
        .into_iter()
        .filter(|name| !name.ends_with("plain"))
    {
        let open = template(name)
            .render(&Conversation::question("Hi"))
            .unwrap()
            .text;
        let closed = template(name).render(&finished()).unwrap();
        assert!(closed.text.starts_with(&open), "{name}");
        assert_eq!(closed.answers.len(), 1, "{name}");
        assert_eq!(closed.answers[0].start, open.len(), "{name}");
        let answer = &closed.text[closed.answers[0].clone()];
        let end = template(name).answer_end();
        assert!(
            answer.trim_end().ends_with(&end.unwrap_or_default()),
            "{name}: {answer}"
        );
    }
}

#[test]
fn every_answer_has_its_span() {
    let turns = ["a", "b", "c", "d"].map(|text| match text {
        "a" | "c" => Turn::user(text),
        _ => Turn::assistant(text),
    });
    let prompt = template("v0")
        .render(&Conversation::new(turns.into()))
        .unwrap();
    let answers: Vec<&str> = prompt
        .answers
        .iter()
        .map(|r| &prompt.text[r.clone()])
        .collect();
    assert_eq!(answers, [" b###", " d###"]);
}

#[test]
fn every_text_has_its_place() {
    let turns = vec![Turn::user("a b"), Turn::assistant("c"), Turn::user("d")];
    for name in ["vicuna_v1", "llama_2", "llama_3", "phi3", "v0"] {
        let prompt = template(name)
            .render(&Conversation::new(turns.clone()))
            .unwrap();
        let texts: Vec<&str> = prompt
            .contents
            .iter()
            .map(|bytes| &prompt.text[bytes.clone()])
            .collect();
        assert_eq!(texts, ["a b", "c", "d"], "{name}");
    }
}

#[test]
fn several_images_come_one_per_line() {
    let conversation = Conversation::question("Compare.").with_images(2);
    assert_eq!(
        conversation.turns[0].said(),
        Some("<image>\n<image>\nCompare.")
    );
}

#[test]
fn turns_are_checked() {
    let render = |turns| template("vicuna_v1").render(&Conversation::new(turns));
    assert_eq!(render(vec![]), Err(TemplateError::NoTurns));
    assert_eq!(
        render(vec![Turn::assistant("x")]),
        Err(TemplateError::RoleOrder {
            index: 0,
            found: Role::Assistant
        })
    );
    assert_eq!(
        render(vec![Turn::user("x"), Turn::user("y")]),
        Err(TemplateError::RoleOrder {
            index: 1,
            found: Role::User
        })
    );
    assert_eq!(
        render(vec![Turn::user(""), Turn::open()]),
        Err(TemplateError::EmptyTurn {
            index: 0,
            role: Role::User
        })
    );
    assert_eq!(
        render(vec![
            Turn::user("x"),
            Turn::open(),
            Turn::user("y"),
            Turn::open()
        ]),
        Err(TemplateError::EmptyTurn {
            index: 1,
            role: Role::Assistant
        })
    );
}

#[test]
fn an_unknown_name_is_answered_with_near_ones() {
    let error = ChatTemplate::by_name("vicuna-v1").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no chat template is called `vicuna-v1`; did you mean vicuna_v1"));
    let far = ChatTemplate::by_name("???").unwrap_err().to_string();
    assert!(far.contains("the templates are v0, default, "), "{far}");
}

#[test]
fn names_are_unique() {
    let mut names = ChatTemplate::names();
    assert_eq!(names.len(), 24);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 24);
}

#[test]
fn stop_strings_follow_the_style() {
    assert_eq!(template("vicuna_v1").stop_strings(), ["</s>"]);
    assert_eq!(template("chatml_direct").stop_strings(), ["<|im_end|>"]);
    assert!(template("mistral_v2").stop_strings().is_empty());
    assert_eq!(
        template("llama_3").answer_end().as_deref(),
        Some("<|eot_id|>")
    );
    assert_eq!(
        template("conv_gemma").answer_end().as_deref(),
        Some("<end_of_turn>")
    );
    assert_eq!(template("vicuna_cambrian").answer_end(), None);
}

fn chosen(model_type: &str, token: &str, explicit: Option<&str>) -> String {
    let hints = TemplateHints {
        model_type,
        conversation_template: explicit,
        has_token: &|text| text == token,
    };
    match ChatTemplate::for_checkpoint(&hints) {
        Ok(choice) => choice.template.name.clone(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_checkpoint_tells_its_template() {
    assert_eq!(chosen("cambrian_phi3", "", None), "phi3");
    assert_eq!(
        chosen("cambrian_llama", "<|start_header_id|>", None),
        "llama_3"
    );
    assert_eq!(
        chosen("cambrian_llama", "<|im_start|>", None),
        "chatml_direct"
    );
    assert_eq!(chosen("llama", "", None), "vicuna_v1");
    assert_eq!(chosen("cambrian_gemma", "", None), "conv_gemma");
    assert_eq!(chosen("cambrian_mistral", "", None), "mistral_instruct");
    assert_eq!(chosen("cambrian_cohere", "", None), "cohere_v1");
    assert_eq!(chosen("cambrian_llama", "", Some("mpt")), "mpt");
    assert!(chosen("opt", "", None).contains("`opt`"));
}
