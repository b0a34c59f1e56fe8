// Keys that are typed on a control of a panel stay there: notebooks take arrows and letters for their own shortcuts,
// unless the focused element itself says otherwise. Shift+Enter and keys with Ctrl, Alt or Cmd remain the notebook's.
function keepKeys(event) {
  const inPanel = event.target instanceof Element && event.target.closest(".diffae-panel");
  if (!inPanel) return;
  const notebooks = event.ctrlKey || event.altKey || event.metaKey || (event.shiftKey && event.key === "Enter");
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !notebooks);
}

// A click beside a slider's handle moves the handle; then the arrow keys should move it too.
function focusHandle(event) {
  const track = event.target instanceof Element && event.target.closest(".diffae-panel .noUi-target");
  if (track) setTimeout(() => track.querySelector(".noUi-handle").focus());
}

function listenOnce() {
  if (window.diffaePanelListens) return;
  window.diffaePanelListens = true;
  window.addEventListener("keydown", keepKeys, true); // on the window, before the notebook's own listener
  window.addEventListener("pointerup", focusHandle, true);
}

export default {
  render({ model, el }) {
    listenOnce();
    el.style.display = "none";
    model.on("msg:custom", ({ copy }) => copy && navigator.clipboard?.writeText(copy).catch(() => {}));
  },
};
