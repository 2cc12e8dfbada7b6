// Deciding: radio buttons beside each finding, and the ledger as a file to save.
(() => {
  const block = document.getElementById("ledger-data");
  const bar = document.getElementById("ledger");
  if (!block || !bar) return;
  const ledger = JSON.parse(block.textContent);
  const column = Object.fromEntries(ledger.columns.map((name, place) => [name, place]));
  const reviewer = document.getElementById("reviewer"), reason = document.getElementById("reason");
  const counted = document.getElementById("decided");
  const original = ledger.rows.map((row) => row.slice());
  const changed = new Set();
  let saved = true;

  const finding = (card) => Number(card.dataset.row);
  const get = (place, name) => ledger.rows[place][column[name]];
  // A spreadsheet must not take what a person typed for a formula.
  const guard = (text) => (/^'*[=+\-@\t\r\n]/.test(text) ? "'" + text : text);

  function decide(place, decision) {
    const row = ledger.rows[place], before = original[place];
    if (row[column.decision] === decision) return;
    if (before[column.decision] === decision) {
      ledger.rows[place] = before.slice();
      changed.delete(place);
    } else {
      row[column.decision] = decision;
      row[column.decided_by] = guard(reviewer.value.trim());
      row[column.decided_at] = decision ? new Date().toISOString().replace(/\.\d+Z$/, "Z") : "";
      row[column.reason] = decision ? guard(reason.value.trim()) : "";
      if (!decision) row[column.decided_by] = "";
      changed.add(place);
    }
    saved = false;
  }

  function count() {
    const done = ledger.rows.filter((row) => row[column.decision]).length;
    counted.textContent = `${done.toLocaleString("en")} of ${ledger.rows.length.toLocaleString("en")} decided`
      + (changed.size ? `, ${changed.size.toLocaleString("en")} of them here` : "");
  }

  function refresh(card) {
    const decision = get(finding(card), "decision");
    card.classList.toggle("decided", decision !== "");
    card.querySelectorAll("input[type=radio]").forEach((input) => { input.checked = input.value === decision; });
    const select = card.querySelector("select");
    if (select) {
      select.value = decision.startsWith("relabel to ") ? decision : "";
      select.classList.toggle("chosen", select.value !== "");
    }
  }

  const cards = Array.from(document.querySelectorAll(".finding[data-row]"));
  cards.forEach((card) => {
    card.addEventListener("change", (event) => {
      decide(finding(card), event.target.value);
      refresh(card);
      count();
    });
    refresh(card);
  });
  document.querySelectorAll("[data-all]").forEach((button) => {
    button.addEventListener("click", () => {
      const wanted = button.dataset.all;
      button.closest("section, details").querySelectorAll(".finding[data-row]").forEach((card) => {
        const place = finding(card), possible = wanted !== "accept" || get(place, "suggestion") !== "review";
        // What somebody decided one by one stays, unless all are opened again.
        if (possible && (wanted === "" || !get(place, "decision"))) { decide(place, wanted); refresh(card); }
      });
      count();
    });
  });

  document.getElementById("save").addEventListener("click", () => {
    const name = guard(reviewer.value.trim());
    changed.forEach((place) => {
      const row = ledger.rows[place];
      if (row[column.decision] && !row[column.decided_by]) row[column.decided_by] = name;
    });
    const rows = ledger.whole ? ledger.rows : ledger.rows.filter((row) => row[column.decision]);
    const special = new RegExp(`["\\r\\n${ledger.separator}]`);
    const cell = (text) => (special.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const text = [ledger.columns, ...rows].map((row) => row.map(cell).join(ledger.separator) + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = ledger.whole ? "ledger.csv" : "decisions.csv";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    saved = true;
  });
  window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

  document.querySelectorAll("[data-script]").forEach((element) => { element.hidden = false; });
  count();
  // A link to a check that passed opens it.
  const open = () => { const target = document.getElementById(location.hash.slice(1)); if (target && target.tagName === "DETAILS") target.open = true; };
  window.addEventListener("hashchange", open);
  open();
})();
