"use strict";
const at = (id) => document.getElementById(id);
const FILTERS = [["all", ""], ["undecided", "."], ["accepted", "a"], ["mended", "m"], ["rejected", "r"]];
const WORDS = { a: "accepted", m: "mended", r: "rejected" };
const LETTERS = { accept: "a", mend: "m", reject: "r" };
let session, shown, filter = 0, task = "", mending = null;

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(path, options);
  const text = await reply.text();
  let value;
  try { value = JSON.parse(text); } catch { throw new Error(text || reply.statusText); }
  if (!reply.ok) throw new Error(value.error || reply.statusText);
  return value;
}

function say(text, bad) {
  at("message").textContent = text;
  at("message").className = bad ? "bad" : "";
}

async function refresh() {
  session = await ask("/api/session");
  const c = session.counts;
  at("counts").textContent =
    `${c.questions - c.undecided} of ${c.questions} decided: ${c.accepted} accepted, ${c.mended} mended, ${c.rejected} rejected`;
  at("who").textContent = `reviewer: ${session.reviewer}`;
  at("filter").textContent = `showing: ${FILTERS[filter][0]}, ${task || "all tasks"}`;
  for (const [name, part] of [["a", c.accepted], ["m", c.mended], ["r", c.rejected]])
    document.querySelector(`#bar .${name}`).style.width = `${100 * part / Math.max(1, c.questions)}%`;
}

const fits = (place) => (!task || session.tasks[place] === task)
  && (!FILTERS[filter][1] || session.standing[place] === FILTERS[filter][1]);

/** The nearest place in a direction that fits a condition, once around. */
function find(from, step, condition) {
  const count = session.tasks.length;
  for (let far = 1; far <= count; far++) {
    const place = (((from + step * far) % count) + count) % count;
    if (condition(place)) return place;
  }
  return null;
}

async function show(place) {
  shown = await ask(`/api/questions/${place}`);
  mending = null;
  at("note").value = "";
  at("picture").src = `/api/pictures/${place}`;
  const next = find(place, 1, fits);
  if (next !== null) new Image().src = `/api/pictures/${next}`;
  history.replaceState(null, "", `#${place}`);
  draw();
}

/** The latest decision that stands. */
const standing = () => shown.decisions.filter((decision) => !decision.undone).pop();

/** The question as it stands: mended if it was. */
function words() {
  const decision = standing();
  const { question, choices, answer } = decision && decision.mended ? decision.mended : shown.question;
  return { question, choices: [...choices], answer };
}

const letter = (place) => `(${String.fromCharCode(65 + place)})`;

function draw() {
  const { question: row } = shown, now = mending || words(), decision = standing();
  document.title = `${shown.place + 1} · CV-Bench review`;
  at("about").textContent =
    `question ${shown.place + 1} of ${session.tasks.length} · ${row.task} · ${row.source_dataset || row.source} · ${row.source_filename}`;
  at("question").textContent = now.question;
  at("choices").replaceChildren(...now.choices.map((choice, place) => {
    const item = document.createElement("li");
    item.textContent = `${letter(place)} ${choice}`;
    if (letter(place) === now.answer) item.className = "right";
    return item;
  }));
  const line = at("standing");
  line.className = decision ? LETTERS[decision.verdict] : "";
  line.textContent = decision ? `${WORDS[LETTERS[decision.verdict]]} by ${decision.reviewer}` : "undecided";
  if (decision && decision.note) {
    const note = document.createElement("small");
    note.textContent = decision.note;
    line.append(note);
  }
  at("mend").hidden = !mending;
  at("question").hidden = line.hidden = document.querySelector("nav").hidden = !!mending;
  if (mending) at("mend-answer").textContent = mending.answer;
}

function startMending() {
  mending = words();
  at("mend-question").value = mending.question;
  at("mend-choices").value = mending.choices.join("\n");
  draw();
}

function readFields() {
  if (!mending) return;
  mending.question = at("mend-question").value.trim();
  mending.choices = at("mend-choices").value.split("\n").map((line) => line.trim()).filter((line) => line);
  draw();
}

async function decide(verdict) {
  readFields();
  const mended = verdict === "mend" ? mending : null;
  await ask("/api/decisions", {
    place: shown.place, digest: shown.digest, verdict, mended, note: at("note").value,
  });
  const before = shown.place;
  await refresh();
  const undecided = (place) => (!task || session.tasks[place] === task) && session.standing[place] === ".";
  const next = find(before, 1, undecided);
  await show(next === null ? before : next);
  say(`${WORDS[LETTERS[verdict]]}: question ${before + 1}${next === null ? ", and nothing is left undecided here" : ""}`);
}

async function move(step, condition, none) {
  const place = find(shown.place, step, condition);
  if (place === null) return say(none, true);
  say("");
  await show(place);
}

async function choose(nothing) {
  await refresh();
  if (!fits(shown.place)) await move(1, fits, nothing);
}

const ACTIONS = {
  a: () => decide("accept"),
  r: () => decide("reject"),
  m: () => { startMending(); say("mending"); },
  u: async () => {
    const { place } = await ask("/api/undo", {});
    await refresh();
    await show(place);
    say(`undone: question ${place + 1}`);
  },
  j: () => move(1, fits, "no question fits the filter"),
  k: () => move(-1, fits, "no question fits the filter"),
  n: () => move(1, (place) => session.standing[place] === "." && (!task || session.tasks[place] === task), "nothing is left undecided"),
  g: () => { at("goto-number").value = ""; at("goto").showModal(); at("goto-number").focus(); },
  f: () => { filter = (filter + 1) % FILTERS.length; return choose("no question fits the filter"); },
  t: () => {
    const tasks = ["", ...new Set(session.tasks)];
    task = tasks[(tasks.indexOf(task) + 1) % tasks.length];
    return choose("no question fits the filter");
  },
  z: () => { document.querySelector("figure").classList.toggle("own"); },
  w: () => at("note").focus(),
  "?": () => at("help").showModal(),
};
ACTIONS.ArrowRight = ACTIONS.j;
ACTIONS.ArrowLeft = ACTIONS.k;

const MENDING = {
  Enter: () => decide("mend"),
  Escape: () => { mending = null; draw(); say("nothing was mended"); },
  q: () => at("mend-question").focus(),
  c: () => at("mend-choices").focus(),
  w: () => at("note").focus(),
};
for (let place = 0; place < 6; place++)
  MENDING[String(place + 1)] = () => {
    readFields();
    if (place >= mending.choices.length) return say(`there is no option ${letter(place)}`, true);
    mending.answer = letter(place);
    draw();
  };

// Keys wait for those before them, so that none is lost while a decision is saved. A key that opens a
// field may wait too: what is typed meanwhile is kept, and goes where it would have gone.
const OPENERS = ["g", "w", "q", "c"];
let queue = Promise.resolve(), waiting = 0, typed = null;

function enqueue(task) {
  const run = async () => {
    try { await task(); } catch (problem) { say(problem.message, true); } finally { waiting -= 1; }
  };
  waiting += 1;
  queue = waiting === 1 ? run() : queue.then(run);
}

function act(key) {
  if (waiting && OPENERS.includes(key)) typed = [];
  enqueue(async () => {
    const action = (mending ? MENDING : ACTIONS)[key];
    if (action) await action();
    if (typed && OPENERS.includes(key)) replay();
  });
}

/** Whether keys are text here; a field of a dialog that was just closed may still have the focus. */
function isField(element) {
  const dialog = element.closest("dialog");
  return element.matches("input, textarea") && (!dialog || dialog.open);
}

function replay() {
  const keys = typed;
  typed = null;
  for (const key of keys) {
    const field = document.activeElement;
    if (typed) typed.push(key);
    else if (!isField(field)) act(key);
    else if (key.length === 1) field.value += key;
    else if (key === "Backspace") field.value = field.value.slice(0, -1);
    else if (key === "Enter" && field.matches("textarea")) field.value += "\n";
    else inField({ target: field, key, preventDefault() {} });
  }
  readFields();
}

function inField(event) {
  const { target, key } = event;
  if (target === at("goto-number")) {
    if (key !== "Enter") return;
    event.preventDefault();
    const place = Number(target.value) - 1;
    at("goto").close();
    enqueue(async () => {
      if (!Number.isInteger(place) || place < 0 || place >= session.tasks.length)
        return say(`there is no question ${target.value}`, true);
      say("");
      await show(place);
    });
    return;
  }
  const leaves = key === "Escape" || (key === "Enter" && (target === at("note") || event.ctrlKey));
  if (!leaves) return;
  event.preventDefault();
  target.blur();
  readFields();
}

addEventListener("keydown", (event) => {
  if (typed) {
    typed.push(event.key);
    return event.preventDefault();
  }
  if (isField(event.target)) return inField(event);
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("button") && (event.key === "Enter" || event.key === " ")) return;
  if (!ACTIONS[event.key] && !MENDING[event.key]) return;
  event.preventDefault();
  // A key that is held down moves on, but decides only once.
  if (event.repeat && !["j", "k", "ArrowLeft", "ArrowRight"].includes(event.key)) return;
  act(event.key);
});
at("mend").addEventListener("submit", (event) => event.preventDefault());
at("mend").addEventListener("input", readFields);
for (const button of document.querySelectorAll("button[data-key]"))
  button.addEventListener("click", () => { act(button.dataset.key); button.blur(); });
at("picture").addEventListener("error", () => say("the picture cannot be shown", true));

enqueue(async () => {
  await refresh();
  const wanted = Number(location.hash.slice(1));
  const first = session.standing.indexOf(".");
  const there = location.hash && Number.isInteger(wanted) && wanted >= 0 && wanted < session.tasks.length;
  await show(there ? wanted : Math.max(0, first));
});
