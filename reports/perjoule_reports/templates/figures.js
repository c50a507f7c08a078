
// Arms can be hidden in every figure and in every table that has a row for them.
const points = all("svg [data-cell]");
const charts = [...new Set(points.map((point) => point.ownerSVGElement))];
const arms = new Map(points.map((point) => [point.dataset.arm, point.dataset.variant]));
if (arms.size > 1) {
  const set = make("fieldset", { className: "arms" });
  set.append(make("legend", { textContent: "Show" }));
  for (const [arm, variant] of [...arms].sort((a, b) => a[0] - b[0])) {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      all(`[data-arm="${arm}"]`).forEach((part) => part.classList.toggle("off", !box.checked));
      all("[data-across]").forEach(rescale);
    });
    const label = make("label");
    const swatch = document.querySelector(`tr[data-arm="${arm}"] .swatch, li[data-arm="${arm}"] .swatch`);
    label.append(box, ...(swatch ? [swatch.cloneNode(true)] : []), variant);
    set.append(label);
  }
  const figure = document.querySelector("main svg [data-cell]").closest("figure");
  // The boxes show the same marks.
  figure.querySelector(".legend")?.classList.add("off");
  figure.before(set);
}

// When an arm is hidden, figures are stretched to the others: paths, markers, labels and ticks get new places.
const home = new Map();
const pairs = (text) => [...text.matchAll(/(-?[\d.]+) (-?[\d.]+)/g)].map((pair) => [+pair[1], +pair[2]]);
function attribute(element, name) {
  const key = home.get(element) || home.set(element, {}).get(element);
  return key[name] ??= element.getAttribute(name);
}
function stretched(values, from, to) {
  const [low, high, length] = [Math.min(...values), Math.max(...values), Math.abs(to - from)];
  const factor = 0.88 * length / Math.max(high - low, length / 12);
  return factor > 1 ? (v) => (from + to) / 2 + (v - (low + high) / 2) * factor : (v) => v;
}
function rescale(frame) {
  const svg = frame.ownerSVGElement;
  const drawn = (selector) => all(selector, svg).filter((part) => !part.closest("defs"));
  const ends = (path) => pairs(attribute(path, "d"));
  const at = (use) => ["x", "y"].map((name) => Number(attribute(use, name)));
  const left = [...drawn("[data-arm]:not(.off) path").flatMap(ends), ...drawn("[data-arm]:not(.off) use").map(at)];
  const whole = !left.length || !svg.querySelector("[data-arm].off");
  const box = pairs(frame.querySelector("path").getAttribute("d"));
  const [x, y] = [0, 1].map((axis) => {
    const all_ = box.map((corner) => corner[axis]);
    const [from, to] = axis ? [Math.max(...all_), Math.min(...all_)] : [Math.min(...all_), Math.max(...all_)];
    const place = whole ? (v) => v : stretched(left.map((pair) => pair[axis]), from, to);
    ticks(svg, axis, place, from, to, frame.dataset[axis ? "up" : "across"], whole);
    return place;
  });
  for (const path of drawn("[data-arm] path, [id$=-attainment] path, [id$=-dominated] path")) {
    const old = attribute(path, "d");
    path.setAttribute("d", old.replace(/(-?[\d.]+) (-?[\d.]+)/g, (_, a, b) => `${x(+a)} ${y(+b)}`));
  }
  for (const use of drawn("[data-arm] use")) {
    const [a, b] = at(use);
    use.setAttribute("x", x(a));
    use.setAttribute("y", y(b));
  }
  all("[id*=-saving-], [id*=-lead-]", svg).forEach((part) => part.classList.toggle("off", !whole));
  // A label outside the axes would cover a tick's.
  const [kept, edges] = [[], frame.getBoundingClientRect()];
  for (const label of all("[id*=-steps-], [id*=-name-]", svg)) {
    const [a, b] = at(document.getElementById(label.id.replace(/-(steps|name)-/, "-point-")).querySelector("use"));
    label.setAttribute("transform", `translate(${x(a) - a} ${y(b) - b})`);
    label.classList.remove("over");
    const seen = label.getBoundingClientRect();
    const over = (!whole && (seen.bottom > edges.bottom || seen.left < edges.left))
      || kept.some((o) => seen.left < o.right && o.left < seen.right && seen.top < o.bottom && o.top < seen.bottom);
    label.classList.toggle("over", over);
    if (!over && seen.width) kept.push(seen);
  }
}
function ticks(svg, axis, place, from, to, candidates, whole) {
  const name = axis ? "ytick" : "xtick";
  all(`.${name}`, svg).forEach((tick) => tick.remove());
  const old = all(`[id*="-${name}_"]`, svg);
  old.forEach((tick) => tick.classList.toggle("off", !whole));
  if (whole || !old.length) return;
  const chosen = [];
  const start = Number(old[0].querySelector("use").getAttribute(axis ? "y" : "x"));
  for (const [text, share] of candidates.split(" ").map((candidate) => candidate.split("@"))) {
    const now = place(from + share * (to - from));
    if ((now - from) * (now - to) > 0 || chosen.some((other) => Math.abs(other - now) < (axis ? 24 : 38))) continue;
    chosen.push(now);
    const tick = old[0].cloneNode(true);
    tick.setAttribute("class", name);
    tick.setAttribute("transform", axis ? `translate(0 ${now - start})` : `translate(${now - start} 0)`);
    [tick, ...all("[id]", tick)].forEach((part) => part.removeAttribute("id"));
    tick.querySelector("text").textContent = text;
    old[0].before(tick);
  }
}

// Points under the mouse or with focus show their joules and images. There is one tab stop per figure, then arrow keys.
const peek = make("div", { className: "peek", id: "peek" });
const pictures = all("li[data-cell]");
const words = new Map();
function show(seen) {
  const figure = seen[0].closest("figure");
  const row = make("div");
  for (const item of pictures.filter((other) => other.dataset.cell === seen[0].dataset.cell).slice(0, 3)) {
    const image = item.querySelector("img");
    if (image) row.append(make("img", { src: image.src, alt: "", className: image.className }));
  }
  const texts = seen.slice(0, 6).map((point) => make("p", { textContent: words.get(point) }));
  peek.replaceChildren(...texts, ...(row.childElementCount ? [row] : []));
  figure.append(peek);
  const [outer, inner] = [figure.getBoundingClientRect(), seen[0].getBoundingClientRect()];
  const right = inner.right - outer.left + 14;
  const fits = right + peek.offsetWidth <= outer.width;
  peek.style.left = `${fits ? right : Math.max(0, inner.left - outer.left - peek.offsetWidth - 14)}px`;
  peek.style.top = `${Math.max(0, inner.top - outer.top - peek.offsetHeight / 2)}px`;
}
for (const picture of charts) {
  const own = all("[data-cell]", picture);
  const visible = () => own.filter((other) => !other.classList.contains("off"));
  const across = (point) => point.getBoundingClientRect().left;
  picture.setAttribute("role", "group");
  picture.addEventListener("pointermove", (event) => {
    const far = (point) => {
      const box = point.getBoundingClientRect();
      return Math.hypot(box.left + box.width / 2 - event.clientX, box.top + box.height / 2 - event.clientY);
    };
    const seen = visible().filter((point) => far(point) < 9).sort((a, b) => far(a) - far(b));
    seen.length ? show(seen) : peek.remove();
  });
  picture.addEventListener("pointerleave", () => peek.remove());
  own.forEach((point, i) => {
    const title = point.querySelector("title");
    words.set(point, title ? title.textContent : point.dataset.cell);
    if (title) title.remove();
    point.setAttribute("role", "img");
    point.setAttribute("aria-label", words.get(point));
    point.setAttribute("tabindex", i ? -1 : 0);
    point.addEventListener("focus", () => show([point]));
    point.addEventListener("blur", () => peek.remove());
    point.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") peek.remove();
      if (!way) return;
      event.preventDefault();
      const seen = visible().sort((a, b) => across(a) - across(b));
      const next = seen[(seen.indexOf(point) + way + seen.length) % seen.length];
      point.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}
