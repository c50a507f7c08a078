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

// What can be scrolled fades out at the edge behind which there is more. The other scripts add some, so this waits.
addEventListener("DOMContentLoaded", () => {
  const wide = ".scroll, pre, nav .page";
  const edges = (box) => {
    box.classList.toggle("more-right", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
    box.classList.toggle("more-left", box.scrollLeft > 2);
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => edges(entry.target.closest(wide))));
  for (const box of all(wide)) {
    box.addEventListener("scroll", () => edges(box), { passive: true });
    [box, ...box.children].forEach((part) => sizes.observe(part));
  }
});

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
