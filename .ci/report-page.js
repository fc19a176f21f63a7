// `.ci/run` appends this to a report.html: it uses the page as a reader does, and writes into it what it found. What is
// wrong is an error on the console.
"use strict";
{
  const cells = [...document.querySelectorAll("#map .cell")];
  const told = () => document.getElementById("told").textContent;
  const check = (holds, what) => {
    if (!holds) throw new Error(what);
  };

  const saysAll = ({ dataset: { step, input, moment, remembered, weight } }) => {
    const of = moment === "initial" ? "the initial state" : `step ${moment} (${remembered})`;
    return told() === `Step ${step} (${input}) was reminded of ${of}, with weight ${weight}.`;
  };
  check(cells.length > 0, "the map has no cells");
  for (const cell of cells) {
    cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    check(saysAll(cell), `pointing at ${cell.outerHTML} says: ${told()}`);
    check(document.getElementById("row").getAttribute("y") === cell.dataset.step, "another row is marked");
  }
  const map = document.getElementById("map");
  const press = (key) => map.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  press("ArrowLeft");
  check(saysAll(cells[cells.length - 2]), `the arrow to the left says: ${told()}`);
  press("ArrowDown");
  press("ArrowUp");
  const above = cells.find((cell) => cell.dataset.step === cells[cells.length - 2].dataset.step);
  check(saysAll(above), `the arrows down and up say: ${told()}`);

  // WCAG 2.2, success criterion 1.4.3.
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(color).map((channel) => linear(channel / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 ? ground(element.parentElement) : color;
  };
  const hasText = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "";
  let lowest = Infinity;
  for (const element of document.querySelectorAll("main *:not(title)")) {
    if (![...element.childNodes].some(hasText)) continue;
    const style = getComputedStyle(element);
    const ink = luminance(element instanceof SVGElement ? style.fill : style.color);
    const paper = luminance(ground(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    check(contrast >= 4.5, `contrast ${contrast.toFixed(2)}: ${element.outerHTML}`);
    lowest = Math.min(lowest, contrast);
  }

  const { scrollWidth, clientWidth } = document.documentElement;
  check(scrollWidth <= clientWidth, `the page is ${scrollWidth} wide in a window of ${clientWidth}`);
  const scheme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const found = `read: ${scheme}, ${clientWidth} pixels wide, ${cells.length} cells, contrast ${lowest.toFixed(1)}`;
  document.body.append(found);
}
