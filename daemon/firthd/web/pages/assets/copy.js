// Puts a button beside each line that people copy. Without scripts the lines are there all the same.
"use strict";

function selectAll(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(element) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch (error) {
      // Refused by the reader's settings; the older way may be open.
    }
  }
  // Over plain http browsers have no clipboard for pages but this one.
  selectAll(element);
  return document.execCommand("copy");
}

for (const line of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + line.dataset.copy);
  button.addEventListener("click", async () => {
    const done = await copy(line);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    document.getElementById("told").textContent = done ? "Copied" : "Selected: press Ctrl+C to copy";
    window.setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
  line.parentElement.prepend(button);
}
