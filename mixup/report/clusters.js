// The browser of clusters: filter, search, sort, page, and one cluster at a time by #cluster=KEY.
// Text of the data enters the page as text nodes only.
(() => {
  "use strict";
  const root = document.getElementById("browser");
  if (!root) return;
  const { labels, clusters } = JSON.parse(document.getElementById("cluster-data").textContent);
  const at = (id) => document.getElementById(id);
  const narrow = window.matchMedia("(max-width: 700px)");
  const PREFIX = "#cluster=";
  const HEAD = 480;
  const pageRows = () => (narrow.matches ? 8 : 12);
  clusters.forEach((cluster, place) => { cluster.place = place; });
  let found = clusters;
  let page = 0;

  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const number = (value) => value.toLocaleString("en-US");
  const score = (value) => (value === null ? "—" : value.toFixed(2));
  const reasonOf = (name) => (Object.hasOwn(labels.reasons, name) ? labels.reasons[name] : name);
  const currentKey = () => {
    if (!location.hash.startsWith(PREFIX)) return null;
    try { return decodeURIComponent(location.hash.slice(PREFIX.length)); } catch { return null; }
  };
  const link = (cluster) => PREFIX + encodeURIComponent(cluster.key);

  // What is searched is put together once for each cluster, when the first search needs it.
  const haystack = (cluster) => {
    cluster.hay ??= [
      cluster.key,
      ...cluster.members.map(([text]) => text),
      ...cluster.samples.flatMap((sample) => [
        sample.text[0],
        sample.thought ? sample.thought[0] : "",
        ...sample.turns.map((turn) => turn[1]),
      ]),
    ].join("\n").toLowerCase();
    return cluster.hay;
  };
  const ORDERS = {
    drawn: (a, b) => a.place - b.place,
    reward: (a, b) => a.reward - b.reward,
    cohesion: (a, b) => a.cohesion - b.cohesion,
    size: (a, b) => a.members.length - b.members.length,
  };
  const sorted = (some, choice) => {
    const [name, direction] = choice.split("-");
    if (name === "drawn") return some;
    const missing = (cluster) => name !== "size" && cluster[name] === null;
    const known = some.filter((cluster) => !missing(cluster)).sort(ORDERS[name]);
    if (direction === "down") known.reverse();
    return [...known, ...some.filter(missing)]; // what has no value comes last either way
  };
  const query = () => at("query").value.trim().toLowerCase();
  const find = () => {
    const split = at("verdict").value.indexOf(":");
    const kind = at("verdict").value.slice(0, Math.max(split, 0));
    const name = at("verdict").value.slice(split + 1);
    const task = at("task").value;
    const words = query();
    const some = clusters.filter((cluster) =>
      (kind !== "verdict" || cluster.verdict === name) &&
      (kind !== "reason" || cluster.samples.some((sample) => sample.reason === name)) &&
      (!task || cluster.task === task) &&
      (!words || haystack(cluster).includes(words)));
    found = sorted(some, at("sort").value);
  };

  const marked = (text) => {
    const words = query();
    const lower = words ? text.toLowerCase() : "";
    // Some letters change their length in lower case; places would be wrong then.
    if (!words || lower.length !== text.length) return [text];
    const parts = [];
    let from = 0;
    for (let to = lower.indexOf(words); to >= 0; to = lower.indexOf(words, from)) {
      parts.push(text.slice(from, to), make("mark", "", text.slice(to, to + words.length)));
      from = to + words.length;
    }
    return [...parts, text.slice(from)];
  };
  const block = (text) => {
    const node = make("div", "text", ...marked(text));
    node.dir = "auto";
    return node;
  };
  const prose = ([text, lost]) => {
    const note = lost ? make("p", "lost", `Cut here: ${number(lost)} more characters are in the tables.`) : null;
    if (text.length <= HEAD * 1.5) return [block(text), note];
    const space = text.lastIndexOf(" ", HEAD);
    const cut = space > HEAD / 2 ? space : HEAD;
    const more = make("span", "more");
    more.setAttribute("aria-hidden", "true");
    const words = query();
    const long = make("details", "long", make("summary", "", block(text.slice(0, cut)), more), block(text.slice(cut)));
    long.open = Boolean(words) && text.slice(Math.max(0, cut - words.length)).toLowerCase().includes(words);
    return [long, note];
  };
  const chip = (verdict) => make("span", "chip v-" + verdict, labels.verdicts[verdict]);
  const bar = (name, value, className) => {
    const fill = make("span", "fill");
    fill.style.width = `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
    const track = make("span", "track", value ? fill : null);
    return make("li", className, make("span", "", name), track, make("span", "num", value === null ? "missing" : score(value)));
  };
  const folded = (title, text) =>
    make("details", "thought", make("summary", "", title), ...prose(text));

  const sampleCard = (sample, place) => {
    const badge = make("span", "badge", sample.accepted ? "Accepted" : "Rejected");
    const turns = make("dl", "turns");
    for (const [role, text, lost] of sample.turns) {
      turns.append(make("dt", "", role), make("dd", "", ...prose([text, lost])));
    }
    const rewards = make("ul", "rewards", ...sample.rewards.map(([name, value]) => bar(name, value, "")));
    rewards.append(bar("combined", sample.combined, "total"));
    const how = sample.constrained ? "constrained decoding" : "free decoding";
    return make("section", "sample " + (sample.accepted ? "ok" : "no"),
      make("h4", "", badge, ` Sample ${place + 1}`),
      sample.reason ? make("p", "reason", make("bdi", "", reasonOf(sample.reason))) : null,
      ...(sample.turns.length ? [turns] : [make("p", "unread soft", "No pair could be read from this text:"), ...prose(sample.text)]),
      sample.thought ? folded("Reasoning", sample.thought) : null,
      sample.turns.length ? folded("Text as written", sample.text) : null,
      rewards,
      make("p", "tags soft", how, sample.finish ? make("bdi", "", " · finish: " + sample.finish) : null));
  };
  const card = (cluster) => {
    const members = make("ol", "members", ...cluster.members.map((text) => make("li", "", ...prose(text))));
    const samples = cluster.samples.length
      ? cluster.samples.map(sampleCard) : [make("p", "absent", "No sample was drawn.")];
    return make("article", "cluster",
      make("h3", "", `Cluster of ${cluster.members.length} rows, `, make("bdi", "", cluster.task), chip(cluster.verdict)),
      make("p", "key soft", cluster.cohesion === null ? null : `cohesion ${score(cluster.cohesion)} · `, make("code", "", cluster.key)),
      make("div", "sides",
        make("div", "", make("p", "side", "Members"), members),
        make("div", "", make("p", "side", "Distilled"), ...samples)));
  };

  const row = (cluster, shown) => {
    const first = cluster.members.length ? cluster.members[0][0].slice(0, 160) : "";
    const text = make("span", "row-text", ...marked(first));
    text.dir = "auto";
    const facts = [cluster.task, `${cluster.members.length} rows`, score(cluster.cohesion)];
    const anchor = make("a", "row", text,
      make("span", "row-facts soft", make("span", "chip v-" + cluster.verdict, labels.short[cluster.verdict]), make("bdi", "", facts.join(" · ")),
        make("span", "row-score num", cluster.reward === null ? "" : score(cluster.reward))));
    anchor.href = link(cluster);
    if (cluster === shown) anchor.setAttribute("aria-current", "true");
    return make("li", "", anchor);
  };
  const shownNow = () => {
    const key = currentKey();
    if (key === null) return found[page * pageRows()] ?? null;
    return clusters.find((cluster) => cluster.key === key) ?? null;
  };

  const draw = () => {
    const key = currentKey();
    const shown = shownNow();
    const place = found.indexOf(shown);
    if (key !== null && place >= 0) page = Math.floor(place / pageRows());
    const pages = Math.max(1, Math.ceil(found.length / pageRows()));
    page = Math.min(page, pages - 1);
    const rows = found.slice(page * pageRows(), (page + 1) * pageRows());
    at("browse").classList.toggle("picked", key !== null);
    at("status").textContent = found.length === clusters.length
      ? `${number(clusters.length)} clusters` : `${number(found.length)} of ${number(clusters.length)} clusters match`;
    at("list").replaceChildren(...rows.map((cluster) => row(cluster, shown)));
    at("page-at").textContent = `${page + 1} / ${pages}`;
    at("page-before").disabled = page === 0;
    at("page-after").disabled = page >= pages - 1;
    at("step-before").disabled = place < 1;
    at("step-after").disabled = place < 0 || place >= found.length - 1;
    at("card").replaceChildren(shown ? card(shown)
      : make("p", "absent", key === null ? "No cluster matches." : `Cluster ${key.slice(0, 80)} is not among those shown here.`));
  };
  const filter = () => { page = 0; find(); draw(); };
  const leave = () => { if (currentKey() !== null) history.pushState(null, "", "#clusters"); };
  const step = (by) => {
    const place = found.indexOf(shownNow());
    const next = found[place + by];
    if (place >= 0 && next) location.hash = link(next);
  };
  const pick = (value) => {
    at("controls").reset();
    at("verdict").value = value;
    if (at("verdict").value !== value) { // a reason of which no cluster is shown
      const option = make("option", "", `${reasonOf(value.slice(value.indexOf(":") + 1))} (0)`);
      option.value = value;
      at("verdict").append(option);
      at("verdict").value = value;
    }
    leave();
    filter();
    at("clusters").scrollIntoView();
    at("clusters").focus({ preventScroll: true });
  };

  for (const id of ["verdict", "task", "sort", "query"]) {
    at(id).addEventListener("input", () => { leave(); filter(); });
  }
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("controls").addEventListener("reset", () => setTimeout(() => { leave(); filter(); }));
  at("page-before").addEventListener("click", () => { page -= 1; leave(); draw(); });
  at("page-after").addEventListener("click", () => { page += 1; leave(); draw(); });
  at("step-before").addEventListener("click", () => step(-1));
  at("step-after").addEventListener("click", () => step(1));
  document.addEventListener("click", (event) => {
    const from = event.target.closest("[data-pick]");
    if (!from) return;
    event.preventDefault();
    pick(from.dataset.pick);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });
  window.addEventListener("hashchange", () => {
    draw();
    if (currentKey() !== null) {
      const top = at("detail").getBoundingClientRect().top;
      if (top < 0 || top > window.innerHeight * 0.7) at("detail").scrollIntoView();
      at("detail").focus({ preventScroll: true });
    }
  });
  narrow.addEventListener("change", draw);

  at("first-clusters").remove();
  root.hidden = false;
  filter();
  // Only when all is in place: folding the contents moves what is below.
  window.addEventListener("load", () => {
    if (currentKey() !== null) at("detail").scrollIntoView({ behavior: "instant" });
  });
})();
