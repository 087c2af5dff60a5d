// Browsers load no modules, and so not page.js, for a page that was opened as a file.
if (location.protocol === "file:") {
  const words = "This page needs a server of files, e.g. python -m http.server in its folder: then open it by http.";
  document.querySelector("#status p").textContent = words;
}
