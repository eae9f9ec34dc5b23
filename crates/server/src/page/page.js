// The page keeps the conversation; the server keeps nothing but what it has read.
"use strict";

const at = (id) => document.getElementById(id);
/** What was said: {role, text, pictures}. */
let turns = [];
/** data: URLs to be shown with the next question. */
let waiting = [];
/** Pictures that are still being read. */
let reading = 0;
/** Aborts the answer under way. */
let under = null;

function element(name, content, kind) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (kind) made.className = kind;
  return made;
}

function picture(url, name) {
  const image = element("img");
  image.src = url;
  image.alt = name;
  image.addEventListener("load", () => follow());
  return image;
}

/** Keeps the end in sight, unless somebody reads further up. */
let following = true;
function follow() { if (following) at("talk").scrollTop = at("talk").scrollHeight; }

function show(turn) {
  at("empty").hidden = true;
  const box = element("div", undefined, `turn ${turn.role}`);
  if (turn.pictures.length) {
    const shown = element("div", undefined, "pictures");
    turn.pictures.forEach((url, i) => shown.append(picture(url, `Picture ${i + 1} of this question`)));
    box.append(shown);
  }
  const text = element("p", turn.text);
  if (turn.text || turn.role === "assistant") box.append(text);
  at("talk").append(box);
  follow();
  return { box, text };
}

function showWaiting() {
  const list = at("waiting");
  list.replaceChildren();
  waiting.forEach((url, i) => {
    const thumb = element("div", undefined, "thumb");
    const drop = element("button", "×");
    drop.type = "button";
    drop.setAttribute("aria-label", `Leave picture ${i + 1} out`);
    drop.addEventListener("click", () => { waiting.splice(i, 1); showWaiting(); });
    thumb.append(picture(url, `Picture ${i + 1} for the next question`), drop);
    list.append(thumb);
  });
  list.hidden = waiting.length === 0;
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function add(files) {
  reading += 1;
  at("send").disabled = true;
  for (const file of files) {
    if (!file.type.startsWith("image/")) { state(`${file.name} is no picture`); continue; }
    try {
      const url = await read(file);
      waiting.push(url);
    } catch (error) { state(`${file.name} cannot be read: ${error.message}`); }
  }
  reading -= 1;
  at("send").disabled = reading > 0;
  showWaiting();
  at("text").focus();
}

function state(text) { at("state").textContent = text; }

function headers() {
  const all = { "Content-Type": "application/json" };
  const key = at("key").value.trim();
  if (key) all.Authorization = `Bearer ${key}`;
  return all;
}

function body() {
  const messages = turns.map(({ role, text, pictures }) => ({
    role,
    content: pictures.length
      ? [...pictures.map((url) => ({ type: "image_url", image_url: { url } })), { type: "text", text }]
      : text,
  }));
  const system = at("system").value.trim();
  if (system) messages.unshift({ role: "system", content: system });
  const asked = { messages, stream: true, stream_options: { include_usage: true } };
  const temperature = at("temperature").value;
  const most = at("most").value;
  if (temperature !== "") asked.temperature = Number(temperature);
  if (most !== "") asked.max_tokens = Number(most);
  return JSON.stringify(asked);
}

/** What the server's events say, one by one. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

function took(usage) {
  const details = usage.prompt_tokens_details;
  const read = usage.prompt_tokens - details.cached_tokens;
  const visual = details.visual_tokens ? `, ${details.visual_tokens} of them visual` : "";
  const again = details.cached_tokens ? ` (${details.cached_tokens} known from before)` : "";
  const written = usage.completion_tokens;
  const speed = usage.decode_seconds > 0 && written > 1 ? `, ${(written / usage.decode_seconds).toFixed(1)} tokens/s` : "";
  return `${usage.prompt_tokens} tokens read${visual}${again}, ${usage.prefill_seconds.toFixed(2)} s; ${written} written${speed}`;
}

async function reason(response) {
  try { return (await response.json()).error.message; } catch { return `the server said ${response.status}`; }
}

async function ask(text) {
  following = true;
  const question = { role: "user", text, pictures: waiting };
  turns.push(question);
  waiting = [];
  showWaiting();
  show(question);
  const answer = { role: "assistant", text: "", pictures: [] };
  const shown = show(answer);
  shown.text.classList.add("writing");
  under = new AbortController();
  busy(true);
  let failed = null;
  let end = null;
  try {
    const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body: body(), signal: under.signal });
    if (!response.ok) throw new Error(await reason(response));
    state("");
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const piece = event.choices[0]?.delta?.content;
      end = event.choices[0]?.finish_reason ?? end;
      if (piece) {
        answer.text += piece;
        shown.text.textContent = answer.text;
        follow();
      }
      if (event.usage) shown.box.append(element("small", took(event.usage)));
    }
  } catch (error) {
    failed = error;
  }
  shown.text.classList.remove("writing");
  if (failed && failed.name !== "AbortError") {
    // What failed is not part of the conversation; the question can be asked again.
    turns.pop();
    waiting = [...question.pictures, ...waiting];
    showWaiting();
    if (!at("text").value) at("text").value = text;
    if (answer.text) shown.box.append(element("p", failed.message, "bad"));
    else {
      shown.text.textContent = failed.message;
      shown.text.classList.add("bad");
    }
  } else {
    if (failed) shown.box.append(element("small", "stopped"));
    if (end === "length") shown.box.append(element("small", "cut off: the longest answer is a setting"));
    if (!answer.text) shown.text.textContent = "…";
    turns.push(answer);
  }
  under = null;
  busy(false);
  follow();
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
  at("new").disabled = is;
  if (!is) at("text").focus();
}

function grow() {
  const text = at("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (under || reading || !text) return;
  at("text").value = "";
  grow();
  ask(text);
});
at("text").addEventListener("input", grow);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});
at("talk").addEventListener("scroll", () => {
  const talk = at("talk");
  following = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
});
at("stop").addEventListener("click", () => under?.abort());
at("new").addEventListener("click", () => {
  turns = [];
  waiting = [];
  showWaiting();
  at("talk").querySelectorAll(".turn").forEach((turn) => turn.remove());
  at("empty").hidden = false;
  state("");
  at("text").focus();
});
at("file").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); add(files); }
});
let over = 0;
document.addEventListener("dragenter", (event) => { event.preventDefault(); over += 1; at("drop").hidden = false; });
document.addEventListener("dragleave", () => { over -= 1; if (over <= 0) { over = 0; at("drop").hidden = true; } });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  at("drop").hidden = true;
  add([...event.dataTransfer.files]);
});
fetch("/health").then((response) => response.json()).then(({ model }) => { at("model").textContent = model; })
  .catch(() => state("the server does not answer"));
