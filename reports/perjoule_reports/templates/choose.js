
// Sliders name the cheapest operating point that keeps a quality and a budget in 90 % of the draws, with its code.
const chooser = document.getElementById("chooser");
if (chooser) {
  const data = JSON.parse(document.getElementById("perjoule-result").textContent);
  const { floor, label, metric, options } = data.choices;
  const sign = data.metrics[metric].direction === "lower" ? -1 : 1;
  const kept = options.map((option) => sign * option.quality_kept);
  const spent = options.map((option) => option.energy_j_kept).filter((joules) => joules !== null);
  // three digits, at most the value: a point that keeps the value keeps what is printed
  const floored = (value) => {
    const near = value.toPrecision(3);
    if (Number(near) <= value + 1e-9 * Math.abs(value)) return near;
    return (Number(near) - 10 ** (Math.floor(Math.log10(Math.abs(value))) - 2)).toPrecision(3);
  };
  const towards = (side, value) => String(side * Number(floored(side * value)) || 0).replace("-", "\u2212");
  const slider = (text, low, high, value) => {
    const input = make("input", { type: "range", min: low, max: high, step: "any", value, id: `choose-${text.length}` });
    const shown = make("output", { htmlFor: input.id });
    chooser.append(make("label", { htmlFor: input.id, textContent: text }), input, shown);
    input.addEventListener("input", answer);
    return [input, shown];
  };
  const quality = slider(`${label} of at ${sign > 0 ? "least" : "most"}`, Math.min(...kept), Math.max(...kept), sign * floor);
  const budget = spent.length ? slider("energy within", Math.log(Math.min(...spent)), Math.log(Math.max(...spent)), 99) : null;
  const line = make("p", { className: "answer" });
  const code = make("code");
  const block = make("pre", { tabIndex: 0 });
  line.setAttribute("role", "status");
  block.append(code);
  chooser.append(line, block);
  function answer() {
    const wanted = Number(quality[0].value);
    const limit = budget && Number(budget[0].value) < Number(budget[0].max) - 1e-9 ? Math.exp(budget[0].value) : Infinity;
    quality[1].textContent = towards(sign, sign * wanted);
    if (budget) budget[1].textContent = limit === Infinity ? "no limit" : `${towards(-1, limit)} J/image`;
    const slack = 1e-6 * Math.max(1, Math.abs(wanted));
    const good = options.find((option) => sign * option.quality_kept >= wanted - slack
      && (limit === Infinity || (option.energy_j_kept !== null && option.energy_j_kept <= limit * (1 + 1e-6))));
    line.textContent = good ? good.sentence : "No operating point keeps both in 90 % of the draws.";
    code.textContent = good && good.code ? good.code : "";
    block.hidden = !code.textContent;
  }
  answer();
  chooser.hidden = false;
}
