/* Tabs, on top of sphinx-design.
 *
 * sphinx-design switches all tabs of a group together, stores the choice in localStorage and reads
 * ?framework=keras from the address. This file adds what it lacks:
 *
 * - the tab that is clicked stays where it is on the screen, although the page above it changes;
 * - a link to something inside a tab (#id) switches the other tab sets too;
 * - ?framework= in the address follows the reader's choice, and an unknown value is ignored;
 * - a page that the browser restores, or that is open in another window, follows too;
 * - code and tables that scroll sideways can be scrolled with the keyboard.
 *
 * Without JavaScript, each tab set is a group of radio buttons, which work by themselves.
 */
"use strict";

(() => {
  const GROUP = "framework";
  const STORED = "sphinx-design-tab-id-" + GROUP;

  const labels = () => [...document.querySelectorAll(`label[data-sync-group="${GROUP}"]`)];
  const inputOf = (label) => document.getElementById(label.htmlFor);
  const known = (id) => labels().some((label) => label.dataset.syncId === id);

  function choose(id) {
    for (const label of labels()) {
      if (label.dataset.syncId === id) inputOf(label).checked = true;
    }
    markScrollable();
  }

  function stored() {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // the browser blocks site data
    }
  }

  /* Before sphinx-design reads it, remove an unknown framework from the address. */
  function checkAddress() {
    const address = new URL(location.href);
    const wanted = address.searchParams.get(GROUP);
    if (wanted !== null && labels().length && !known(wanted)) {
      address.searchParams.delete(GROUP);
      history.replaceState(history.state, "", address);
    }
  }

  function updateAddress(id) {
    const address = new URL(location.href);
    if (address.searchParams.has(GROUP)) {
      address.searchParams.set(GROUP, id);
      history.replaceState(history.state, "", address);
    }
  }

  /* sphinx-design opens the tab that holds the address's #id; tell it to switch the others. */
  function followHash() {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    const panel = target.closest(".sd-tab-content");
    const label = target.closest(".sd-tab-label") || (panel && panel.previousElementSibling);
    const input = label && label.htmlFor && inputOf(label);
    if (!input) return;
    input.checked = true;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    target.scrollIntoView();
  }

  /* The position of the changed tab's label, before and after all tabs have switched. */
  let before = null;
  function label(event) {
    return event.target.matches?.(".sd-tab-set > input") ? event.target.nextElementSibling : null;
  }
  document.addEventListener(
    "change",
    (event) => {
      const changed = label(event);
      before = changed && changed.getBoundingClientRect().top;
    },
    true,
  );
  document.addEventListener("change", (event) => {
    const changed = label(event);
    if (!changed) return;
    const moved = changed.getBoundingClientRect().top - before;
    if (moved) scrollBy({ top: moved, behavior: "instant" });
    if (changed.dataset.syncGroup === GROUP) updateAddress(changed.dataset.syncId);
    markScrollable();
  });

  /* What scrolls sideways must be reachable with the keyboard. */
  const SCROLLS =
    ".highlight pre, .table-wrapper, .math-wrapper, .scroll, .picture, figure, p:has(> img)";
  function markScrollable() {
    for (const box of document.querySelectorAll(SCROLLS)) {
      const wide = box.scrollWidth > box.clientWidth;
      if (wide && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
      else if (box.getAttribute("tabindex") === "0") box.removeAttribute("tabindex");
    }
  }

  document.addEventListener("DOMContentLoaded", checkAddress, true);
  addEventListener("load", () => {
    followHash();
    markScrollable();
  });
  addEventListener("resize", markScrollable);
  document.addEventListener("toggle", markScrollable, true);
  addEventListener("hashchange", followHash);
  addEventListener("pageshow", (event) => {
    if (event.persisted && stored()) choose(stored());
  });
  addEventListener("storage", (event) => {
    if (event.key === STORED && event.newValue) choose(event.newValue);
  });
})();
