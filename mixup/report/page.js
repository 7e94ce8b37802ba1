// Draws the figures, in the colors that the reader's system asks for, filters the table of
// contamination hits, and folds the contents away on a narrow screen.
(() => {
  "use strict";
  const { figures, dark } = JSON.parse(document.getElementById("figure-data").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isTouched = window.matchMedia("(pointer: coarse)").matches;

  const recolored = (value) => {
    if (typeof value === "string") return Object.hasOwn(dark, value) ? dark[value] : value;
    if (Array.isArray(value)) return value.map(recolored);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolored(v)]));
    }
    return value;
  };
  let isPrinting = false; // paper is light
  const drawOne = (place) => {
    const figure = figures[place.id.slice("plot-".length)];
    const isDark = prefersDark.matches && !isPrinting;
    const { data, layout } = structuredClone(isDark ? recolored(figure) : figure);
    if (isTouched) layout.dragmode = false; // a finger on a figure scrolls the page
    Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
  };
  const places = [...document.querySelectorAll(".plot")];
  const draw = () => places.filter((place) => place.dataset.drawn).forEach(drawOne);

  // The library is unpacked when the page stands, and a figure is drawn when it comes into view.
  const unpack = async () => {
    const packed = document.getElementById("packed-plotly");
    const bytes = Uint8Array.from(atob(packed.textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || target.dataset.drawn) continue;
      target.dataset.drawn = "yes";
      drawOne(target);
      watch.unobserve(target);
    }
  }, { rootMargin: "600px" });
  const print = () => {
    isPrinting = true;
    for (const place of places) place.dataset.drawn = "yes";
    draw();
  };
  const start = async () => {
    if (!window.DecompressionStream) { // an old browser: the numbers instead of the figures
      document.querySelectorAll(".numbers").forEach((numbers) => { numbers.open = true; });
      places.forEach((place) => { place.hidden = true; });
      return;
    }
    await unpack();
    places.forEach((place) => watch.observe(place));
    prefersDark.addEventListener("change", draw);
    window.addEventListener("beforeprint", print);
    window.addEventListener("afterprint", () => { isPrinting = false; draw(); });
    document.documentElement.dataset.figures = "ready";
  };
  setTimeout(start, 50);

  const hits = document.getElementById("hits");
  if (hits) {
    const query = document.getElementById("hit-query");
    const status = document.getElementById("hit-status");
    const rows = [...hits.tBodies[0].rows];
    document.getElementById("hit-controls").hidden = false;
    query.addEventListener("input", () => {
      const words = query.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(words);
      const left = rows.filter((row) => !row.hidden).length;
      status.textContent = words ? `${left} of ${rows.length} match` : "";
    });
  }

  const contents = document.getElementById("contents");
  const narrow = window.matchMedia("(max-width: 1080px)");
  const fold = () => { contents.open = !narrow.matches; };
  fold();
  narrow.addEventListener("change", fold);
})();
