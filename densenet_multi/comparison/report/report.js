"use strict";
// Without this script, the radio buttons select the columns all the same.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const picked = (side) => document.querySelector(`input[name=${side}]:checked`).id.slice(1);
  const pick = (side, i) => {
    const button = document.getElementById(side + i);
    if (button) button.checked = true;
  };

  const update = () => {
    const [left, right] = [picked("l"), picked("r")];
    const lines = all(`.c${left} .line`);
    const differ = lines.filter((line) => line.classList.contains(`d${right}`)).length;
    document.getElementById("count").textContent =
      `${differ} of ${lines.length} lines of the first differ.`;
    history.replaceState(null, "", `#code=${left},${right}`); // a link to this pair
  };

  if (document.getElementById("count")) {
    const before = { l: picked("l"), r: picked("r") };
    const linked = /^#code=(\d+),(\d+)$/.exec(location.hash);
    if (linked && linked[1] !== linked[2]) {
      pick("l", linked[1]);
      pick("r", linked[2]);
      [before.l, before.r] = [picked("l"), picked("r")];
      update();
    }
    for (const input of all("input.pick")) {
      input.addEventListener("change", () => {
        const other = input.name === "l" ? "r" : "l";
        if (picked(other) === picked(input.name)) pick(other, before[input.name]); // swap
        [before.l, before.r] = [picked("l"), picked("r")];
        update();
      });
    }
    for (const row of all(".columns")) { // scroll both columns at once
      row.addEventListener("scroll", ({ target }) => {
        for (const pre of row.querySelectorAll("pre")) pre.scrollLeft = target.scrollLeft;
      }, true);
    }
  }
  const open = (state) => all("details").forEach((each) => { each.open = state; });
  addEventListener("beforeprint", () => open(true));
  addEventListener("afterprint", () => open(false));
})();
