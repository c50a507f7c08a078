"use strict";
// One person, one browser. The study is part of the page; answers stay in localStorage until they are saved as a file
// or, if `perjoule study serve` runs the study, sent. No clock that can be set is read.
const study = JSON.parse(document.getElementById("study").textContent);
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const wait = (ms) => new Promise((done) => { setTimeout(done, ms); });
const randomId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

// ---- what this browser keeps -----------------------------------------------------------------------------------------

const PREFIX = `perjoule-study:${study.study_id}:`;
const memory = new Map(); // stands in where the browser refuses storage
const store = {
  get(name) {
    let text = memory.get(name);
    if (text === undefined) try { text = localStorage.getItem(PREFIX + name); } catch { text = null; }
    try { return JSON.parse(text ?? "null"); } catch { return null; }
  },
  set(name, value) {
    const text = JSON.stringify(value);
    try {
      localStorage.setItem(PREFIX + name, text);
      memory.delete(name);
    } catch {
      memory.set(name, text);
      $("notice").hidden = false;
      $("notice").textContent = "This browser does not keep data. Keep this page open until you have saved your answers.";
    }
  },
  remove(name) {
    memory.delete(name);
    try { localStorage.removeItem(PREFIX + name); } catch { /* nothing was kept */ }
  },
  clear() {
    memory.clear();
    try {
      Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).forEach((key) => localStorage.removeItem(key));
    } catch { /* nothing was kept */ }
  },
};

// `state`: observer, trials (in the order of the design), begun (practice is over), mm (per device pixel), clock (ms).
// Each answer has a key of its own, so that two tabs cannot overwrite each other's.
let state = null;
const tab = randomId();
let clockBase = 0, clockFrom = 0;
const clock = (now) => Math.round(10 * (clockBase + now - clockFrom)) / 10;
const answered = (trial) => store.get(`answer:${trial.trial_id}`);
const answers = () => state.trials.map(answered).filter(Boolean);
const sent = () => new Set(store.get("sent") ?? []);
const refused = () => store.get("refused") ?? {};
const unsent = () => { const done = sent(); return answers().filter((answer) => !done.has(answer.trial_id)); };
const upcoming = () => state.trials.filter((trial) => !answered(trial));
const answerFile = (some) => ({ schema: 1, study_id: study.study_id, answers: some });
const mine = () => store.get("state")?.observer === state.observer && store.get("tab") === tab;

function keep(more) {
  Object.assign(state, more);
  store.set("state", state);
}

// ---- screens ---------------------------------------------------------------------------------------------------------

const title = document.title;
let screen = "";

function show(id) {
  screen = id;
  all("main > section").forEach((section) => { section.hidden = section.id !== id; });
  if (id !== "trial") {
    shown = null;
    turn += 1;
  }
  if (state) {
    const [done, total] = [answers().length, state.trials.length];
    const left = study.served ? unsent().length : 0;
    const many = (n) => `${n} answer${n === 1 ? "" : "s"}`;
    all(".done").forEach((e) => { e.textContent = id === "end" ? `You gave ${many(done)}.` : `${done} of ${total} pairs are done.`; });
    all(".observer").forEach((e) => { e.textContent = state.observer; });
    const [reason] = Object.values(refused());
    const why = fault || (reason && `The study says: ${reason}.`);
    all(".unsent").forEach((e) => {
      e.hidden = !left;
      e.textContent = `${many(left)} ${left === 1 ? "has" : "have"} not arrived yet. ` + (why
        ? `${why} Please save a copy and send it to the people who invited you.`
        : "Keep this page open: it tries again by itself. You can also save a copy.");
    });
    if (study.served) { $("all-sent").hidden = left > 0; $("handover").hidden = left > 0; }
  }
  const head = document.querySelector(`#${id} h1`);
  document.title = ["trial", "consent"].includes(id) ? title : `${head.textContent} · ${title}`;
  scrollTo(0, 0);
  head.focus({ preventScroll: true });
}

function problem(element, text) {
  element.hidden = !text;
  element.textContent = text;
}

async function agree() {
  const observer = randomId();
  let trials;
  problem($("consent-problem"), "");
  if (study.served) {
    $("agree").disabled = true;
    try {
      trials = (await post("session", { observer })).trials;
    } catch (error) {
      problem($("consent-problem"), error.said ?? "The study cannot be reached. Please try again in a minute.");
      return;
    } finally {
      $("agree").disabled = false;
    }
  } else {
    // a link that ends in #3 asks for the third session; otherwise one is drawn
    const wanted = /^#[0-9]+$/.test(location.hash) ? Number(location.hash.slice(1)) - 1 : crypto.getRandomValues(new Uint32Array(1))[0];
    const session = study.sessions[((wanted % study.sessions.length) + study.sessions.length) % study.sessions.length];
    trials = session.map((id) => study.trials[id]);
  }
  if (stored()) return start(); // another tab was quicker
  state = { observer, trials, begun: false, mm: null, clock: 0 };
  keep({});
  take();
  show("size");
  fitCard();
}

// Make this tab the one that asks.
function take() {
  state = stored();
  if (!state) return show("consent");
  store.set("tab", tab);
  clockBase = state.clock;
  clockFrom = performance.now();
  return null;
}

// ---- the size of the screen, by a bank card of 85.60 mm x 53.98 mm -----------------------------------------------------

function fitCard() {
  const [long, upright] = [Number($("card-size").value), innerWidth < 700];
  const short = Math.round((long * 53.98) / 85.6);
  $("bank-card").style.width = `${upright ? short : long}px`;
  $("bank-card").style.height = `${upright ? long : short}px`;
}

function resizeCard(by) {
  $("card-size").valueAsNumber += by;
  fitCard();
}

// ---- trials ----------------------------------------------------------------------------------------------------------

let shown = null; // the trial that can be answered now, and when it appeared
let turn = 0; // a later call of `next` ends an earlier one
let lastPress = -Infinity;
const loading = new Map();

function load(id) {
  if (!loading.has(id)) {
    loading.set(id, new Promise((done, fail) => {
      const image = new Image();
      image.onload = () => done(image); // which is kept, so that the picture is there when it is needed
      image.onerror = () => { loading.delete(id); fail(new Error(study.pictures[id].file)); };
      image.src = study.pictures[id].file;
    }));
  }
  return loading.get(id);
}

// Load the pictures of the next trials, one after the other: the connection may be lost.
const AHEAD = 10;
let ahead = false;
async function loadAhead() {
  if (ahead) return;
  ahead = true;
  try {
    for (const [, id] of upcoming().slice(0, AHEAD).flatMap(parts)) await load(id);
  } catch { /* tried again with the next trial */ } finally {
    ahead = false;
  }
}

const parts = (trial) => [["left", trial.left], ["reference", trial.reference], ["right", trial.right]].filter(([, id]) => id);

async function next(feedback = "") {
  const mineNow = ++turn;
  shown = null;
  const [trial] = upcoming();
  if (!trial) return finish();
  if (trial.kind !== "practice" && !state.begun && state.trials[0].kind === "practice") {
    $("pairs-left").textContent = upcoming().length;
    return show("begin");
  }
  const entering = screen !== "trial";
  $("trial").classList.add("blank");
  $("feedback").textContent = feedback;
  if (entering) show("trial");
  describe(trial);
  try {
    await Promise.all([...parts(trial).map(([, id]) => load(id)), wait(feedback ? study.feedback_ms : study.blank_ms)]);
    if (mineNow !== turn) return null;
    $("prompt").textContent = study.prompts[trial.prompt];
    await Promise.all(parts(trial).map(([side, id]) => {
      const image = $(side).querySelector("img");
      image.src = study.pictures[id].file;
      return image.decode();
    }));
  } catch {
    if (mineNow !== turn) return null;
    $("picture-problem").hidden = false;
    await wait(study.retry_ms);
    return mineNow === turn ? next() : null;
  }
  if (mineNow !== turn) return null;
  $("picture-problem").hidden = true;
  layOut(trial);
  await new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); });
  if (mineNow !== turn) return null;
  $("feedback").textContent = "";
  $("trial").classList.remove("blank");
  shown = { trial, at: performance.now() };
  $("say").textContent = `${$("count").textContent}. Text: ${study.prompts[trial.prompt]}`;
  loadAhead();
  return null;
}

function describe(trial) {
  const same = state.trials.filter((other) => (other.kind === "practice") === (trial.kind === "practice"));
  const number = same.indexOf(trial) + 1;
  $("count").textContent = `${trial.kind === "practice" ? "Practice" : "Pair"} ${number} of ${same.length}`;
  $("progress").max = same.length;
  $("progress").value = number - 1;
}

// Pictures have the width that the study declares, or the largest that fits the window; small pictures with hard pixels
// are enlarged by a whole number of device pixels. The width that was used is recorded.
function layOut(trial) {
  const stacked = innerWidth < 700 && innerHeight > innerWidth;
  const words = stacked ? ["Top", "Bottom"] : ["Left", "Right"];
  ["left", "right"].forEach((side, i) => {
    $(side).querySelector("b").textContent = words[i];
    $(side).querySelector("img").alt = `${words[i]} picture: choose`;
  });
  const columns = stacked ? 1 : parts(trial).length;
  $("pictures").style.setProperty("--columns", columns);
  for (const [side] of parts(trial)) { $(side).style.setProperty("--width", "0px"); $(side).style.setProperty("--height", "0px"); }
  const room = {
    width: ($("trial").clientWidth - 28 * (columns - 1)) / columns - 16,
    height: Math.max(120, (innerHeight - document.body.offsetHeight - 2) / (stacked ? parts(trial).length : 1)),
  };
  const mm = state.mm ? state.mm * devicePixelRatio : 25.4 / 96;
  const tallest = Math.max(...parts(trial).map(([, id]) => study.pictures[id].height / study.pictures[id].width));
  const wanted = Math.min(study.width_mm / mm, room.width, room.height / tallest);
  for (const [side, id] of parts(trial)) {
    const { width, height } = study.pictures[id];
    const factor = Math.floor((wanted * devicePixelRatio) / width);
    const whole = study.pixelated && factor >= 1;
    const used = whole ? (factor * width) / devicePixelRatio : wanted;
    $(side).style.setProperty("--width", `${used}px`);
    $(side).style.setProperty("--height", `${(used * height) / width}px`);
    $(side).querySelector("img").style.imageRendering = whole ? "pixelated" : "auto";
  }
  const prompt = $("prompt");
  if (prompt.scrollHeight > prompt.clientHeight + 1) prompt.tabIndex = 0; else prompt.removeAttribute("tabindex");
}

// One press, one answer: a held key, a double click or a press during the blank is not an answer, and neither is what
// follows another press too closely.
function press(choice, repeated = false) {
  const now = performance.now();
  const close = now - lastPress < study.quiet_ms;
  lastPress = now;
  if (repeated || close || !shown || now - shown.at < study.guard_ms) return;
  const { trial, at } = shown;
  shown = null;
  if (!stored()) return leave();
  if (!mine()) return show("elsewhere");
  if (!answered(trial)) {
    const width = $("left").querySelector("img").getBoundingClientRect().width;
    store.set(`answer:${trial.trial_id}`, {
      study_id: study.study_id, observer: state.observer, trial_id: trial.trial_id, left: trial.left_arm, right: trial.right_arm,
      choice, shown_at_ms: clock(at), response_ms: Math.round(10 * (now - at)) / 10,
      viewport: {
        width_px: innerWidth, height_px: innerHeight, device_pixel_ratio: devicePixelRatio,
        mm_per_px: state.mm ? state.mm * devicePixelRatio : null, picture_width_px: width,
      },
      provenance: navigator.webdriver ? "simulated" : "people", // a browser that a program drives says so
    });
    keep({ clock: clock(now) });
  }
  send();
  const wrong = trial.expected && choice !== trial.expected;
  next(trial.kind === "practice" && trial.expected ? (wrong ? "The other one was expected here." : "Yes, that one.") : "");
}

function finish() {
  show("end");
  if (study.served) send();
}

// ---- `perjoule study serve` ------------------------------------------------------------------------------------------

let sending = false, fault = "", timer = 0;

async function post(path, content) {
  const body = JSON.stringify(content);
  const reply = await fetch(`api/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body, cache: "no-store", credentials: "omit",
    signal: AbortSignal.timeout(15000), keepalive: body.length < 60000, // arrives even if the tab is closed
  });
  const said = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(said.error), { said: `The study says: ${said.error}.`, final: reply.status < 500 });
  return said;
}

// Send what has not arrived, as often as needed: the server stores each answer once.
async function send() {
  if (!study.served || sending) return;
  clearTimeout(timer);
  sending = true;
  let failure = null;
  const queue = () => (state ? unsent().filter((answer) => !(answer.trial_id in refused())) : []);
  try {
    const gone = store.get("delete");
    if (gone) {
      await post("delete", { observer: gone });
      store.remove("delete");
      if (screen === "deleted") tellDeleted(true);
    }
    if (queue().length) {
      const { observer } = state;
      const reply = await post("answers", answerFile(queue().slice(0, 100)));
      if (state?.observer !== observer) return; // deleted meanwhile
      store.set("sent", [...new Set([...sent(), ...reply.stored])]);
      store.set("refused", { ...refused(), ...reply.refused });
      if (study.active) await replan();
    }
  } catch (error) {
    failure = error;
  } finally {
    sending = false;
    fault = failure?.final ? failure.said : "";
    $("offline").hidden = !failure || Boolean(fault);
    if (!fault && (store.get("delete") || queue().length)) timer = setTimeout(send, failure ? study.retry_ms : 0);
    if (["paused", "end"].includes(screen)) refresh();
  }
}

// Every few answers, ask which trials are worth asking now. Those that come at once, and practice, stay.
const SOON = 3;
let planned = 0;
async function replan() {
  const { observer, trials } = state;
  const soon = upcoming().slice(0, SOON);
  if (answers().length < planned + SOON || soon.length < SOON || soon.some((trial) => trial.kind === "practice")) return;
  const reply = await post("next", { observer, soon: soon.map((trial) => trial.trial_id) });
  // too late, or another tab goes on: then the next reply will do
  const left = soon.filter((trial) => !answered(trial));
  if (state?.trials !== trials || !mine() || !left.length || !reply.trials) return;
  planned = answers().length;
  keep({ trials: [...trials.filter((trial) => answered(trial)), ...left, ...reply.trials] });
}

// Update a screen without moving the focus.
function refresh() {
  const active = document.activeElement;
  show(screen);
  if (active?.isConnected && active !== document.body) active.focus({ preventScroll: true });
}

// ---- one's own data --------------------------------------------------------------------------------------------------

function save() {
  const content = answerFile(answers());
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `answers-${study.study_id.slice(0, 8)}-${state.observer.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  $("handover").hidden = false;
  $("say").textContent = "Saved as a file.";
}

function tellDeleted(everywhere) {
  $("deleted-text").textContent = everywhere
    ? "Your answers are deleted." + (study.served ? "" : " If you have sent your file, ask the people who have it to delete it too.")
    : "Your answers are deleted in this browser. They are now being deleted on the computer that runs the study: "
      + "keep this page open until it says that they are deleted.";
}

function forget() {
  const { observer } = state;
  state = null;
  store.clear();
  if (study.served) store.set("delete", observer);
  tellDeleted(!study.served);
  show("deleted");
  send();
}

// The data are gone: they were deleted in another tab.
function leave() {
  state = null;
  tellDeleted(true);
  show("deleted");
}

// ---- start -----------------------------------------------------------------------------------------------------------

const go = {
  consent: () => show("consent"),
  next() { take(); if (state) { lastPress = performance.now(); next(); } },
  save,
  "ask-delete": () => $("sure").showModal(),
};

function stored() {
  const kept = store.get("state");
  const known = (id) => Object.hasOwn(study.pictures, id);
  const usable = (trial) => known(trial?.left) && known(trial.right) && Object.hasOwn(study.prompts, trial.prompt);
  return /^[0-9a-f]{32}$/.test(kept?.observer) && Array.isArray(kept.trials) && kept.trials.length && kept.trials.every(usable)
    && Number.isFinite(kept.clock) ? kept : null;
}

function start() {
  state = stored();
  if (study.served) send();
  if (!state) return show("consent");
  if (!upcoming().length) { take(); return finish(); }
  if (answers().length) return show("paused");
  show("size");
  return fitCard();
}

// The second click of a double click must not press a button of the next screen.
document.addEventListener("click", (event) => {
  if (event.detail > 1 && !event.target.closest("[data-choice], .slider")) event.stopImmediatePropagation();
}, true);
all("[data-go]").forEach((button) => button.addEventListener("click", () => go[button.dataset.go]()));
all("[data-choice]").forEach((button) => button.addEventListener("click", () => press(button.dataset.choice)));
$("agree").addEventListener("click", agree);
$("decline").addEventListener("click", () => show("declined"));
$("pause").addEventListener("click", () => show("paused"));
$("begin-now").addEventListener("click", () => { keep({ begun: true }); go.next(); });
$("card-size").addEventListener("input", fitCard);
$("smaller").addEventListener("click", () => resizeCard(-2));
$("larger").addEventListener("click", () => resizeCard(2));
$("fits").addEventListener("click", () => {
  keep({ mm: 85.6 / Number($("card-size").value) / devicePixelRatio });
  show("intro");
});
$("skip").addEventListener("click", () => show("intro"));
$("keep").addEventListener("click", () => $("sure").close());
$("delete").addEventListener("click", () => { $("sure").close(); forget(); });
$("next-person").addEventListener("click", () => { store.clear(); state = null; show("consent"); });

const KEYS = { ArrowLeft: "left", ArrowRight: "right", "=": "equal" };
addEventListener("keydown", (event) => {
  if (screen !== "trial" || event.altKey || event.ctrlKey || event.metaKey) return;
  const choice = KEYS[event.key];
  if (choice && (choice !== "equal" || $("equal"))) {
    event.preventDefault();
    press(choice, event.repeat);
  } else if (event.repeat && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault(); // a held key would press the button again and again
    lastPress = performance.now();
  }
});
addEventListener("resize", () => { if (screen === "trial" && shown) layOut(shown.trial); if (screen === "size") fitCard(); });
addEventListener("online", send);
addEventListener("pageshow", (event) => { if (event.persisted) start(); });
addEventListener("storage", (event) => {
  if (!state || (event.key !== null && !event.key.startsWith(PREFIX))) return;
  if (!stored()) leave();
  else if (["trial", "paused", "begin", "size", "intro"].includes(screen) && !mine()) show("elsewhere");
});
start();
