
// Sliders name the cheapest operating point that keeps a quality and a budget in 90 % of the draws, with its code.
const chooser = document.getElementById("chooser");
if (chooser) {
  const data = JSON.parse(document.getElementById("perjoule-result").textContent);
  const { floor, label, metric, options } = data.choices;
  const sign = data.metrics[metric].direction === "lower" ? -1 : 1;
  const kept = options.map((option) => sign * option.quality_kept);
  const spent = options.map((option) => option.energy_j_kept).filter((joules) => joules !== null);
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
    quality[1].textContent = (sign * wanted).toPrecision(3);
    if (budget) budget[1].textContent = limit === Infinity ? "no limit" : `${limit.toPrecision(3)} J/image`;
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
