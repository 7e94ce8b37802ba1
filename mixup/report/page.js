// Draws the figures, in the colors that the reader's system asks for, and folds the contents
// away on a narrow screen.
(() => {
  "use strict";
  const { figures, dark } = JSON.parse(document.getElementById("figure-data").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

  const recolored = (value) => {
    if (typeof value === "string") return Object.hasOwn(dark, value) ? dark[value] : value;
    if (Array.isArray(value)) return value.map(recolored);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolored(v)]));
    }
    return value;
  };

  const draw = () => {
    for (const [id, figure] of Object.entries(figures)) {
      const place = document.getElementById("plot-" + id);
      if (!place) continue;
      const { data, layout } = structuredClone(prefersDark.matches ? recolored(figure) : figure);
      Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
    }
  };
  draw();
  prefersDark.addEventListener("change", draw);

  const contents = document.getElementById("contents");
  const narrow = window.matchMedia("(max-width: 1080px)");
  const fold = () => { contents.open = !narrow.matches; };
  fold();
  narrow.addEventListener("change", fold);
})();
