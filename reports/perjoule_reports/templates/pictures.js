
// The viewer shows any two cells for one prompt: side by side, behind a slider, or by turns, at any size.
const choices = JSON.parse(document.getElementById("perjoule-images")?.textContent || "null");
if (choices) {
  const { cells, prompts, metric } = choices;
  // Tiles are the smallest.
  const rank = (image) => ("reduced" in image.dataset ? 2 : 0) + (image.closest(".sheet") ? 1 : 0);
  const inline = new Map(all("img[data-key]").sort((a, b) => rank(b) - rank(a)).map((image) => [image.dataset.key, image]));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const keyOf = (cell, [id, seed]) => `${cell.run}/${cell.cell}/${id}/${seed}`;
  const state = { mode: "side", zoom: 1, x: 50, y: 50, top: 0, used: false };
  const viewer = make("div", { className: "viewer", id: "viewer" });
  const select = (name, texts) => {
    const box = make("select");
    box.append(...texts.map((text, i) => make("option", { value: i, textContent: text })));
    const label = make("label", { textContent: `${name} ` });
    label.append(box);
    box.addEventListener("change", use);
    return [label, box];
  };
  const button = (text, title, action) => {
    const made = make("button", { type: "button", textContent: text, title });
    made.addEventListener("click", () => { action(); if (!state.used) use(); });
    return made;
  };
  const [promptLabel, prompt] = select("Prompt", prompts.map(([, seed, text], i) => `${i + 1}. ${text}, seed ${seed}`));
  const sides = ["Left", "Right"].map((name, i) => {
    const [label, box] = select(name, cells.map((cell) => cell.label));
    box.value = i;
    const pane = make("figure");
    const view = make("div", { className: "view" });
    const image = make("img");
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 64));
    const note = make("p", { className: "note" });
    const caption = make("figcaption");
    view.append(image, note);
    pane.append(view, caption);
    return { label, box, pane, image, note, caption };
  });
  const slider = make("input", { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", "Share of the left image");
  slider.addEventListener("input", place);
  const modes = { side: "Side by side", slide: "Slider", flicker: "Flicker" };
  const buttons = Object.entries(modes).map(([mode, text]) => button(text, "", () => { state.mode = mode; place(); }));
  const step = (by) => { prompt.value = (Number(prompt.value) + by + prompts.length) % prompts.length; use(); };
  const zoom = (factor) => { state.zoom = factor ? Math.min(16, Math.max(1, state.zoom * factor)) : 1; place(); };
  const stage = make("div", { className: "stage", tabIndex: 0 });
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", "Two images");
  stage.setAttribute("aria-describedby", "keys");
  const keys = make("p", { className: "remark keys", id: "keys", textContent: "Keys: ← → prompt, + − 0 size, "
    + "shift and arrows to move, S slider, F flicker, B both, space to swap" });
  const bar = (...parts) => { const made = make("div", { className: "bar" }); made.append(...parts); return made; };
  stage.append(...sides.map((side) => side.pane));
  viewer.append(
    bar(promptLabel, button("←", "previous prompt", () => step(-1)), button("→", "next prompt", () => step(1))),
    bar(...sides.map((side) => side.label)),
    bar(...buttons, button("−", "smaller", () => zoom(0.5)), button("+", "larger", () => zoom(2))),
    stage, slider, keys,
  );

  function source(side, cell, image, chosen) {
    const [id, seed, text] = chosen;
    const thumb = inline.get(keyOf(cell, chosen));
    const file = cell.folder === null ? null : `${cell.folder}images/${encodeURIComponent(`${cell.cell}.${id}.s${seed}`)}.png`;
    const put = (from, sentence = "") => {
      if (from) side.image.src = from; else side.image.removeAttribute("src");
      side.image.hidden = !from;
      side.note.textContent = sentence;
    };
    const missed = () => put(thumb?.src, `${thumb ? "This image is smaller than the original" : "This image is not part of the page"}; `
      + (file ? `${file} was not found next to it.` : "its run directory contains it."));
    side.image.onerror = null;
    side.image.alt = `${text} (${cell.label})`;
    if (!image) put("", "This cell has no image of this prompt and seed.");
    else if (thumb && !(state.used && "reduced" in thumb.dataset)) put(thumb.src);
    else if (!state.used) put("", "This image is not part of the page; choose a prompt or a cell to load it.");
    else if (file) {
      side.image.onerror = () => { side.image.onerror = null; missed(); };
      put(file);
    } else missed();
    const [steps, joules, score] = image || ["", "", ""];
    side.caption.replaceChildren(make("strong", { textContent: cell.label }), ...(image ? [cell.label.endsWith(steps) ? "" : ` ${steps}`, make("br"),
      joules, make("br"), `${metric} ${score}`] : []));
  }
  function show() {
    const chosen = prompts[prompt.value];
    sides.forEach((side) => {
      const cell = cells[side.box.value];
      source(side, cell, cell.images[prompt.value], chosen);
    });
  }
  // Files are read when a reader asks for images, not when the page is opened.
  function use() {
    state.used = true;
    show();
  }
  function place() {
    const { mode } = state;
    stage.className = `stage ${mode}`;
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", Object.keys(modes)[i] === mode));
    slider.hidden = mode !== "slide";
    sides[1].pane.classList.toggle("under", mode === "flicker" && !state.top);
    sides[0].pane.classList.toggle("under", mode === "flicker" && state.top === 1);
    for (const [name, value] of [["--zoom", state.zoom], ["--x", `${state.x}%`], ["--y", `${state.y}%`], ["--cut", `${slider.value}%`]]) {
      stage.style.setProperty(name, value);
    }
  }
  const swap = () => { state.top = 1 - state.top; place(); };
  setInterval(() => { if (state.mode === "flicker" && !calm && !document.hidden) swap(); }, 600);
  stage.addEventListener("pointermove", (event) => {
    const view = event.target.closest(".view");
    if (!view || state.zoom === 1) return;
    const box = view.getBoundingClientRect();
    state.x = 100 * (event.clientX - box.left) / box.width;
    state.y = 100 * (event.clientY - box.top) / box.height;
    place();
  });
  stage.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const mode = { s: "slide", f: "flicker", b: "side" }[event.key.toLowerCase()];
    const size = { "+": 2, "=": 2, "-": 0.5, 0: 0 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(way || mode || size !== undefined || event.key === " ")) return;
    // Up and down scroll the page.
    if (way && !event.shiftKey && way[1]) return;
    event.preventDefault();
    if (!state.used) use();
    if (mode) { state.mode = mode; place(); }
    else if (size !== undefined) zoom(size);
    else if (event.key === " ") swap();
    else if (!event.shiftKey) step(way[0]);
    else {
      state.x = Math.min(100, Math.max(0, state.x + 10 * way[0]));
      state.y = Math.min(100, Math.max(0, state.y + 10 * way[1]));
      place();
    }
  });
  all(".sheet li").forEach((tile) => tile.addEventListener("click", () => {
    const [, , id, seed] = tile.querySelector("img")?.dataset.key.split("/") || [];
    const at = prompts.findIndex((one) => one[0] === id && String(one[1]) === seed);
    if (at < 0) return;
    prompt.value = at;
    use();
    viewer.scrollIntoView({ block: "nearest" });
  }));
  document.querySelector("#pictures .album").before(viewer);
  prompt.value = Math.max(0, prompts.findIndex((one) => cells.slice(0, 2).every((cell) => inline.has(keyOf(cell, one)))));
  show();
  place();
}
