// The example photos in, which Gradio shows without a word; names for who cannot see them, out.
(() => {
  const name = () =>
    document.querySelectorAll("#examples button:not([aria-label])").forEach((button) => {
      const number = 1 + [...button.parentElement.children].indexOf(button);
      button.setAttribute("aria-label", `Example photo ${number}`);
    });
  new MutationObserver(name).observe(document, { childList: true, subtree: true });
})();
