// Set the theme that was chosen on the rest of the site; then load the page, or explain why it cannot work here.
const page = document.documentElement;
try {
  page.dataset.theme = localStorage.theme ?? "auto";
} catch {
  page.dataset.theme = "auto"; // the browser stores nothing
}

function explain(message) {
  if (page.dataset.state === "failed") return;
  page.dataset.state = "failed";
  const show = () => (document.getElementById("status").textContent = message);
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", show) : show();
}

if (location.protocol === "file:") {
  explain("This page can't run from a file. In the repository, make play serves it and says where.");
} else if (typeof WebAssembly !== "object") {
  explain("This page needs WebAssembly, which this browser lacks or has switched off. Any current browser has it.");
} else if (!("toReversed" in Array.prototype)) {
  explain("This page needs a browser from 2023 or later.");
} else {
  addEventListener("DOMContentLoaded", () => import("./play.js").catch((error) => explain(`The page could not start: ${error.message}.`)));
}
