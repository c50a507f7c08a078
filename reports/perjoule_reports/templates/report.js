"use strict";
// Optional: the page is complete without this script.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, more = {}) => Object.assign(document.createElement(tag), more);

// A click on a column head sorts the table; another click reverses the order. Rows without a number stay last.
for (const table of all("section > .scroll > table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const label = head.querySelector(".head");
    const button = make("button", { type: "button", textContent: label.textContent });
    label.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("num");
      const key = (row) => {
        const cell = row.cells[column];
        if (!numeric) return cell.textContent;
        return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}

// Arms can be hidden in every figure and in every table that has a row for them.
const points = all("svg [data-cell]");
const arms = new Map(points.map((point) => [point.dataset.arm, point.dataset.variant]));
if (arms.size > 1) {
  const set = make("fieldset", { className: "arms" });
  set.append(make("legend", { textContent: "Show" }));
  for (const [arm, variant] of [...arms].sort((a, b) => a[0] - b[0])) {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      all(`[data-arm="${arm}"]`).forEach((part) => part.classList.toggle("off", !box.checked));
    });
    const label = make("label");
    const swatch = document.querySelector(`tr[data-arm="${arm}"] .swatch`);
    label.append(box, ...(swatch ? [swatch.cloneNode(true)] : []), variant);
    set.append(label);
  }
  points[0].closest("figure").before(set);
}

// A point under the mouse or with focus shows its joules and images. There is one tab stop per figure, then arrow keys.
const peek = make("div", { className: "peek", id: "peek" });
const pictures = all("li[data-cell]");
function show(point, text) {
  const figure = point.closest("figure");
  const row = make("div");
  for (const item of pictures.filter((other) => other.dataset.cell === point.dataset.cell).slice(0, 3)) {
    const image = item.querySelector("img");
    if (image) row.append(make("img", { src: image.src, alt: "", className: image.className }));
  }
  peek.replaceChildren(make("p", { textContent: text }), ...(row.childElementCount ? [row] : []));
  figure.append(peek);
  const [outer, inner] = [figure.getBoundingClientRect(), point.getBoundingClientRect()];
  const right = inner.right - outer.left + 14;
  const fits = right + peek.offsetWidth <= outer.width;
  peek.style.left = `${fits ? right : Math.max(0, inner.left - outer.left - peek.offsetWidth - 14)}px`;
  peek.style.top = `${Math.max(0, inner.top - outer.top - peek.offsetHeight / 2)}px`;
}
for (const picture of new Set(points.map((point) => point.ownerSVGElement))) {
  const own = all("[data-cell]", picture);
  const across = (point) => point.getBoundingClientRect().left;
  picture.setAttribute("role", "group");
  own.forEach((point, i) => {
    const title = point.querySelector("title");
    const text = title ? title.textContent : point.dataset.cell;
    if (title) title.remove();
    point.setAttribute("role", "img");
    point.setAttribute("aria-label", text);
    point.setAttribute("tabindex", i ? -1 : 0);
    point.addEventListener("mouseenter", () => show(point, text));
    point.addEventListener("mouseleave", () => peek.remove());
    point.addEventListener("focus", () => show(point, text));
    point.addEventListener("blur", () => peek.remove());
    point.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") peek.remove();
      if (!way) return;
      event.preventDefault();
      const seen = own.filter((other) => !other.classList.contains("off")).sort((a, b) => across(a) - across(b));
      const next = seen[(seen.indexOf(point) + way + seen.length) % seen.length];
      point.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}

const copy = document.getElementById("copy");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const data = JSON.parse(document.getElementById("perjoule-result").textContent);
    try {
      await navigator.clipboard.writeText(JSON.stringify(data, null, 2));
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "The browser does not allow copying: use result.json";
    }
  });
}
