"use strict";
// The map. All text of the data is put on the page with textContent, never as markup.
(() => {
  const root = document.getElementById("map");
  const block = document.getElementById("map-data");
  if (!root || !block) return;
  const data = JSON.parse(block.textContent);
  const find = (name) => document.getElementById(name);
  const [select, legend, facts, said] = [find("map-colour"), find("map-legend"), find("map-facts"), find("map-said")];
  const picture = find("map-picture");
  const COLOURS = 12, PER_SHAPE = 6, NEAR = 14;
  const sheets = data.sheets.map((address) => {
    const image = new Image();
    image.onload = () => { if (chosen >= 0 && sheetOf(chosen) === image) show(chosen); };
    image.src = address;
    return image;
  });
  const findings = data.ids.map(() => []);
  data.checks.forEach((check, place) => check.cells.forEach((cell) => findings[cell].push(place)));
  let groups = [], groupOf = [], hidden = new Set(), colours = [], ink = "", paper = "", muted = "";
  let chosen = -1, kept = -1, queued = false;

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const sheetOf = (cell) => sheets[Math.floor(data.picture[cell] / data.columns ** 2)];

  // Colours and shapes: six colours told apart by anyone, then another shape with the next six.
  const look = (number) => ({ colour: number % COLOURS, shape: Math.floor(number / PER_SHAPE) % 4 });
  function arrange(mode) {
    hidden = new Set();
    const other = { name: "", colour: -1, shape: 0, count: 0, back: true };
    if (mode === "class") {
      groups = data.classes.map((name, number) => ({ name, ...look(number), count: 0 }));
      groups.push({ ...other, name: "no label" });
      groupOf = data.label.map((label) => (label < 0 ? groups.length - 1 : label));
    } else if (mode === "split") {
      groups = data.splits.map((name, number) => ({ name, ...look(number), count: 0 }));
      groupOf = data.split.slice();
    } else if (mode === "finding") {
      groups = data.checks.map((check, number) => ({ name: check.title, ...look(number), count: 0, large: true }));
      groups.push({ ...other, name: "nothing found" });
      groupOf = findings.map((places) => (places.length ? places[0] : groups.length - 1));
    } else {
      const place = Number(mode.slice(6));
      groups = [{ name: data.checks[place].title, ...look(1), count: 0, large: true }, { ...other, name: "not found" }];
      groupOf = findings.map((places) => (places.includes(place) ? 0 : 1));
    }
    groupOf.forEach((group) => { groups[group].count += 1; });
    drawLegend();
    redraw();
  }

  function readColours() {
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(name).trim();
    colours = Array.from({ length: COLOURS }, (_, number) => value(`--map-${number + 1}`));
    [ink, paper, muted] = [value("--ink"), value("--paper"), value("--muted")];
  }

  function mark(context, x, y, size, shape) {
    if (shape === 0) { context.moveTo(x + size, y); context.arc(x, y, size, 0, 2 * Math.PI); return; }
    if (shape === 1) { const s = size * 0.9; context.rect(x - s, y - s, 2 * s, 2 * s); return; }
    const s = size * 1.3;
    context.moveTo(x, y - s);
    if (shape === 2) { context.lineTo(x + s, y + 0.8 * s); context.lineTo(x - s, y + 0.8 * s); }
    else { context.lineTo(x + s, y); context.lineTo(x, y + s); context.lineTo(x - s, y); }
    context.closePath();
  }
  const fill = (group) => (group.colour < 0 ? muted : colours[group.colour]);

  function drawLegend() {
    legend.replaceChildren();
    groups.forEach((group, number) => {
      if (!group.count) return;
      const button = make("button");
      button.type = "button";
      const sign = make("canvas");
      sign.width = sign.height = 28;
      const context = sign.getContext("2d");
      context.fillStyle = fill(group);
      context.beginPath();
      mark(context, 14, 14, 10, group.shape);
      context.fill();
      button.append(sign, make("b", group.name), make("span", group.count.toLocaleString("en")));
      button.setAttribute("aria-pressed", String(!hidden.has(number)));
      button.title = "Show or hide";
      button.addEventListener("click", () => {
        if (hidden.has(number)) hidden.delete(number); else hidden.add(number);
        button.setAttribute("aria-pressed", String(!hidden.has(number)));
        redraw();
      });
      const item = make("li");
      item.append(button);
      legend.append(item);
    });
  }

  const panels = Array.from(root.querySelectorAll(".map-frame")).map((frame, number) => {
    const canvas = make("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `Map of ${data.ids.length} cells${data.panels[number].title ? ", " + data.panels[number].title : ""}. Arrow keys go from cell to cell.`);
    frame.replaceChildren(canvas);
    const panel = { canvas, frame, ...data.panels[number], zoom: 1, left: 0, top: 0, width: 0, height: 0, pointers: new Map() };
    const shuffled = (index) => Math.imul(index + 1, 2654435761) >>> 0;
    panel.mixed = panel.cells.map((_, index) => index).sort((a, b) => shuffled(a) - shuffled(b));
    panel.at = new Map(panel.cells.map((cell, index) => [cell, index]));
    return panel;
  });

  const side = (panel) => Math.min(panel.width, panel.height) * 0.94 * panel.zoom;
  function place(panel, index) {
    const s = side(panel);
    return [panel.width / 2 + panel.left + (panel.x[index] / data.span - 0.5) * s,
            panel.height / 2 + panel.top + (panel.y[index] / data.span - 0.5) * s];
  }
  function limit(panel) {
    // The middle of the view stays over the map, so that it cannot be lost.
    const reach = side(panel) / 2;
    panel.left = Math.max(-reach, Math.min(reach, panel.left));
    panel.top = Math.max(-reach, Math.min(reach, panel.top));
    panel.canvas.style.touchAction = panel.zoom > 1 ? "none" : "pan-y";
  }
  function zoomBy(panel, factor, x = panel.width / 2, y = panel.height / 2) {
    const zoom = Math.max(1, Math.min(60, panel.zoom * factor));
    const change = zoom / panel.zoom;
    panel.left = (x - panel.width / 2) * (1 - change) + panel.left * change;
    panel.top = (y - panel.height / 2) * (1 - change) + panel.top * change;
    panel.zoom = zoom;
    if (zoom === 1) panel.left = panel.top = 0;
    limit(panel);
    redraw();
  }

  function paint(panel) {
    const { canvas, width, height } = panel;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const crowd = Math.sqrt(Math.min(width, height) ** 2 / Math.max(panel.cells.length, 1));
    const size = Math.max(1.6, Math.min(4.5, 0.3 * crowd)) * Math.min(2.2, panel.zoom ** 0.4);
    context.strokeStyle = paper;
    context.lineWidth = 0.5;
    // What is of no interest first; the rest mixed, or the last class would cover all others.
    for (const back of [true, false]) {
      for (const index of panel.mixed) {
        const group = groups[groupOf[panel.cells[index]]];
        if (!group.back === back || hidden.has(groupOf[panel.cells[index]])) continue;
        const [x, y] = place(panel, index);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        const own = size * (group.large ? 1.6 : back ? 0.8 : 1);
        context.globalAlpha = back ? 0.35 : 0.85;
        context.fillStyle = fill(group);
        context.beginPath();
        mark(context, x, y, own, group.shape);
        context.fill();
        if (!back && own > 2) context.stroke();
      }
    }
    context.globalAlpha = 1;
    const index = panel.at.get(chosen);
    if (index !== undefined) {
      const [x, y] = place(panel, index);
      for (const [style, line] of [[paper, 5], [ink, 2.2]]) {
        context.strokeStyle = style;
        context.lineWidth = line;
        context.beginPath();
        context.arc(x, y, size + 6, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
  function redraw() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; panels.forEach(paint); });
  }

  function near(panel, x, y, reach) {
    let best = -1, least = reach * reach;
    panel.cells.forEach((cell, index) => {
      if (hidden.has(groupOf[cell])) return;
      const [px, py] = place(panel, index);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; best = cell; }
    });
    return best;
  }

  function row(name, value, kind = "") {
    facts.append(make("dt", name, kind), make("dd", value, kind));
  }
  function show(cell, aloud = false) {
    chosen = cell;
    facts.replaceChildren();
    const context = picture.getContext("2d");
    context.clearRect(0, 0, picture.width, picture.height);
    if (cell < 0) { facts.append(make("dt", "Point at a cell.", "wide")); redraw(); return; }
    const label = data.label[cell] < 0 ? "no label" : data.classes[data.label[cell]];
    if (data.picture[cell] >= 0) {
      const tile = data.picture[cell] % data.columns ** 2, sheet = sheetOf(cell);
      if (sheet.complete && sheet.naturalWidth) {
        context.imageSmoothingQuality = "high";
        context.drawImage(sheet, (tile % data.columns) * data.tile, Math.floor(tile / data.columns) * data.tile,
          data.tile, data.tile, 0, 0, picture.width, picture.height);
      }
    }
    row("Label", label, "wide");
    if (data.split) row("Part", data.splits[data.split[cell]]);
    row("Image", data.ids[cell], "wide");
    const hits = new Set(findings[cell].map((number) => data.checks[number].title));
    data.scores.forEach((score) => {
      const value = score.values[cell];
      if (value !== null) row(score.title, value.toFixed(3), hits.has(score.title) ? "hit" : "");
      hits.delete(score.title);
    });
    hits.forEach((title) => row(title, "found", "hit"));
    if (aloud) said.textContent = `${label}, ${data.ids[cell]}${findings[cell].length ? ", found by " + findings[cell].map((n) => data.checks[n].title).join(", ") : ""}`;
    redraw();
  }

  function step(panel, dx, dy) {
    const from = panel.at.get(chosen);
    const [x, y] = from === undefined ? [panel.width / 2, panel.height / 2] : place(panel, from);
    let best = -1, least = Infinity;
    panel.cells.forEach((cell, index) => {
      if (cell === chosen || hidden.has(groupOf[cell])) return;
      const [px, py] = place(panel, index);
      const along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy - (py - y) * dx);
      if (from !== undefined && along <= Math.max(0.5, across)) return;
      const distance = along * along + 4 * across * across;
      if (distance < least) { least = distance; best = cell; }
    });
    if (best < 0) return;
    kept = best;
    show(best, true);
    const [px, py] = place(panel, panel.at.get(best));
    if (px < 12 || px > panel.width - 12) panel.left += panel.width / 2 - px;
    if (py < 12 || py > panel.height - 12) panel.top += panel.height / 2 - py;
    limit(panel);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function listen(panel) {
    const { canvas, pointers } = panel;
    const local = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, local(event));
      moved = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = local(event), before = pointers.get(event.pointerId);
      if (!before) { if (kept < 0) { const cell = near(panel, x, y, NEAR); if (cell !== chosen) show(cell); } return; }
      if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        const spread = ([a, b]) => Math.hypot(a - other[0], b - other[1]);
        zoomBy(panel, spread([x, y]) / Math.max(1, spread(before)), (x + other[0]) / 2, (y + other[1]) / 2);
      } else {
        panel.left += x - before[0];
        panel.top += y - before[1];
        limit(panel);
        canvas.classList.add("dragged");
        redraw();
      }
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      pointers.set(event.pointerId, [x, y]);
    });
    const release = (event) => {
      if (event.type === "pointerup" && pointers.has(event.pointerId) && moved < 5) {
        const cell = near(panel, ...local(event), event.pointerType === "touch" ? 2 * NEAR : NEAR);
        kept = cell === kept ? -1 : cell;
        show(cell);
      }
      pointers.delete(event.pointerId);
      canvas.classList.remove("dragged");
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { if (kept < 0 && !pointers.size && chosen >= 0) show(-1); });
    canvas.addEventListener("wheel", (event) => {
      // A page that swallows the wheel cannot be scrolled past its map.
      if (!(event.ctrlKey || event.metaKey || document.activeElement === canvas)) return;
      event.preventDefault();
      zoomBy(panel, Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 250), ...local(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (arrow && event.shiftKey) { panel.left -= 60 * arrow[0]; panel.top -= 60 * arrow[1]; limit(panel); redraw(); }
      else if (arrow) step(panel, ...arrow);
      else if (event.key === "+" || event.key === "=") zoomBy(panel, 1.5);
      else if (event.key === "-") zoomBy(panel, 1 / 1.5);
      else if (event.key === "0") zoomBy(panel, 0);
      else if (event.key === "Escape") { kept = -1; show(-1); }
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => {
      panel.width = panel.frame.clientWidth;
      panel.height = panel.frame.clientHeight;
      limit(panel);
      redraw();
    }).observe(panel.frame);
  }

  const factors = { in: 1.5, out: 1 / 1.5, reset: 0 };
  root.querySelectorAll("[data-map]").forEach((button) => {
    button.addEventListener("click", () => panels.forEach((panel) => zoomBy(panel, factors[button.dataset.map])));
  });
  const option = (value, text) => { const one = make("option", text); one.value = value; select.append(one); };
  option("class", "class");
  if (data.split) option("split", "part");
  if (data.checks.length) option("finding", "finding");
  data.checks.forEach((check, number) => option(`check-${number}`, `only: ${check.title}`));
  select.addEventListener("change", () => arrange(select.value));
  const recolour = () => { readColours(); drawLegend(); redraw(); };
  document.querySelectorAll("input[name=theme]").forEach((input) => input.addEventListener("change", recolour));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  root.querySelectorAll("[data-script]").forEach((element) => { element.hidden = false; });
  readColours();
  panels.forEach(listen);
  arrange("class");
})();
