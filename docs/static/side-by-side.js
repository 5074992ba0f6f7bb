/* Two columns for the page "Side by side": two frameworks of the reader's choice, lines aligned.
 *
 * The page holds one tab set per class or function. On a screen of at least 1000 pixels, each is
 * replaced by a table with two selects. Without JavaScript, and on a phone, the tabs remain.
 */
"use strict";

(() => {
  const WIDE = matchMedia("(min-width: 1000px)");
  const LEFT = "sphinx-design-tab-id-framework"; // the choice that all tabs share
  const RIGHT = "side-by-side-right";
  const SIGNS = { same: "", apart: "", changed: "~", left: "−", right: "+" };
  const SPOKEN = { changed: "differs", left: "only left", right: "only right" };

  const normal = (text) => text.trim().replace(/\s+/g, " ");
  const words = (text) => text.match(/\w+/g) || [];

  function read(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  }

  function write(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // the browser blocks site data: the choice lasts as long as the page
    }
  }

  /* The best alignment of two sequences: [i, j] pairs, where null stands for a gap. */
  function align(a, b, score) {
    const best = Array.from({ length: a.length + 1 }, () => new Float64Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        const pair = score(a[i], b[j]);
        const paired = pair > 0 ? pair + best[i + 1][j + 1] : -1;
        best[i][j] = Math.max(paired, best[i + 1][j], best[i][j + 1]);
      }
    }
    const pairs = [];
    let i = 0;
    let j = 0;
    while (i < a.length && j < b.length) {
      const pair = score(a[i], b[j]);
      if (pair > 0 && best[i][j] === pair + best[i + 1][j + 1]) pairs.push([i++, j++]);
      else if (best[i][j] === best[i + 1][j]) pairs.push([i++, null]);
      else pairs.push([null, j++]);
    }
    while (i < a.length) pairs.push([i++, null]);
    while (j < b.length) pairs.push([null, j++]);
    return pairs;
  }

  /* Equal lines are the longest common subsequence; between them, similar lines form pairs. */
  function likeness(left, right) {
    if (left.normal === right.normal) return left.normal ? 4 : 0.5;
    if (!left.normal || !right.normal) return 0;
    if (!left.words.length || !right.words.length) return 0;
    const common = align(left.words, right.words, (x, y) => (x === y ? 1 : 0));
    const matched = common.filter(([i, j]) => i !== null && j !== null).length;
    const share = (2 * matched) / (left.words.length + right.words.length);
    return share > 0.5 ? share : 0;
  }

  /* The highlighted lines of a panel; two empty lines separate its definitions. */
  function linesOf(panel) {
    const parts = [...panel.querySelectorAll("pre")].map((pre) => {
      const code = pre.cloneNode(true);
      code.querySelectorAll(".linenos, .copybtn").forEach((node) => node.remove());
      return code.innerHTML.replace(/^<span><\/span>/, "").trimEnd();
    });
    return parts
      .join("\n\n\n")
      .split("\n")
      .map((line) => {
        const holder = document.createElement("code");
        holder.innerHTML = line;
        const text = holder.textContent;
        return { html: line, text, normal: normal(text), words: words(text) };
      });
  }

  /* A line's code, with the tokens that the other line lacks marked. */
  function cell(line, other) {
    const code = document.createElement("code");
    if (!line) return code;
    code.innerHTML = line.html;
    const indent = line.text.length - line.text.trimStart().length + 4;
    code.style.paddingLeft = `${indent}ch`;
    code.style.textIndent = `-${indent}ch`;
    if (!other) return code;
    const tokens = [...code.childNodes].filter((node) => node.textContent.trim());
    const texts = tokens.map((node) => node.textContent.trim());
    const holder = document.createElement("code");
    holder.innerHTML = other.html;
    const others = [...holder.childNodes].map((node) => node.textContent.trim()).filter(Boolean);
    const pairs = align(texts, others, (x, y) => (x === y ? 1 : 0));
    for (const [i, j] of pairs) {
      if (i === null || j !== null) continue;
      const mark = document.createElement("mark");
      tokens[i].replaceWith(mark);
      mark.append(tokens[i]);
    }
    return code;
  }

  function row(kind, left, right) {
    const line = document.createElement("tr");
    line.className = kind;
    const sign = document.createElement("td");
    sign.className = "sign";
    sign.textContent = SIGNS[kind];
    if (SPOKEN[kind]) {
      const spoken = document.createElement("span");
      spoken.className = "visually-hidden";
      spoken.textContent = ` ${SPOKEN[kind]}`;
      sign.append(spoken);
    }
    const changed = kind === "changed";
    const cells = [cell(left, changed && right), cell(right, changed && left)].map((code, side) => {
      const box = document.createElement("td");
      box.className = side ? "right" : "left";
      box.append(code);
      return box;
    });
    line.append(cells[0], sign, cells[1]);
    return line;
  }

  class Comparison {
    constructor(tabs, title) {
      this.tabs = tabs;
      this.lines = {};
      this.names = {};
      this.files = {};
      for (const label of tabs.querySelectorAll(":scope > label")) {
        const id = label.dataset.syncId;
        this.names[id] = label.textContent.trim();
        const panel = label.nextElementSibling;
        this.lines[id] = linesOf(panel);
        this.files[id] = panel.querySelector(".source-file > *");
      }
      this.table = document.createElement("table");
      this.table.className = "columns";
      this.table.innerHTML =
        "<caption></caption><colgroup><col><col class='sign'><col></colgroup>" +
        "<thead><tr><th scope='col'></th><td class='sign'></td><th scope='col'></th></tr></thead>" +
        "<tbody class='highlight'></tbody>";
      const caption = this.table.caption;
      caption.className = "visually-hidden";
      caption.textContent = `${title}: two frameworks side by side`;
      this.selects = [...this.table.querySelectorAll("th")].map((head, side) => {
        const select = document.createElement("select");
        select.setAttribute("aria-label", `Framework on the ${side ? "right" : "left"}`);
        for (const [id, name] of Object.entries(this.names)) select.add(new Option(name, id));
        select.addEventListener("change", () => chosen(this, side, select.value));
        const file = document.createElement("span");
        file.className = "source-file";
        head.append(select, file);
        return select;
      });
      // text is selected in one column at a time
      this.table.addEventListener("mousedown", (event) => {
        const side = event.target.closest("td.left, td.right");
        if (side) this.table.dataset.selecting = side.className;
      });
      tabs.before(this.table);
    }

    show(left, right) {
      const [a, b] = [this.lines[left], this.lines[right]];
      this.selects[0].value = left;
      this.selects[1].value = right;
      [...this.table.querySelectorAll("th")].forEach((head, side) => {
        const id = side ? right : left;
        head.dataset.framework = id;
        head.lastChild.replaceChildren(...(this.files[id] ? [this.files[id].cloneNode(true)] : []));
      });
      const pairs = align(a, b, likeness);
      const alike = pairs.filter(([i, j]) => i !== null && j !== null && a[i].normal).length;
      const most = Math.max(a.length, b.length);
      if (most > 20 && alike < 0.2 * most) {
        // two long and different texts: both from the top, nothing marked
        const apart = Array.from({ length: most }, (_, i) => row("apart", a[i], b[i]));
        this.table.tBodies[0].replaceChildren(...apart);
        return;
      }
      const rows = pairs.map(([i, j]) => {
        if (j === null) return row("left", a[i], null);
        if (i === null) return row("right", null, b[j]);
        return row(a[i].normal === b[j].normal ? "same" : "changed", a[i], b[j]);
      });
      this.table.tBodies[0].replaceChildren(...rows);
    }
  }

  const comparisons = [];
  let shown = ["torch", "keras"];

  /* Both choices hold for the complete page; the left one is also that of all tabs. */
  function chosen(source, side, id) {
    const top = source.table.getBoundingClientRect().top;
    if (shown[1 - side] === id) shown = [shown[1], shown[0]];
    else shown[side] = id;
    write(RIGHT, shown[1]);
    const label = source.tabs.querySelector(`:scope > label[data-sync-id="${shown[0]}"]`);
    const input = document.getElementById(label.htmlFor);
    if (!input.checked) {
      input.checked = true;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
    showAll();
    scrollBy({ top: source.table.getBoundingClientRect().top - top, behavior: "instant" });
  }

  function showAll() {
    for (const comparison of comparisons) comparison.show(...shown);
  }

  function start() {
    const all = document.querySelectorAll(".sd-tab-set.side-by-side");
    if (!all.length || comparisons.length || !WIDE.matches) return;
    for (const tabs of all) {
      const title = tabs.closest("section")?.querySelector("h1, h2, h3")?.firstChild.textContent;
      comparisons.push(new Comparison(tabs, title || "Code"));
    }
    const ids = Object.keys(comparisons[0].names);
    const checked = document.querySelector(".side-by-side > input:checked + label").dataset.syncId;
    const right = [read(RIGHT), "keras", "torch"].find((id) => ids.includes(id) && id !== checked);
    shown = [checked, right];
    showAll();
    document.documentElement.classList.add("has-columns");
  }

  addEventListener("load", () => {
    start();
    WIDE.addEventListener("change", start);
    // a choice in any tab is the left column's
    document.addEventListener("change", (event) => {
      const label = event.target.matches(".sd-tab-set > input") && event.target.nextElementSibling;
      const id = label && label.dataset.syncGroup === "framework" && label.dataset.syncId;
      if (!id || !comparisons.length || id === shown[0]) return;
      shown = id === shown[1] ? [id, shown[0]] : [id, shown[1]];
      showAll();
    });
  });
})();
