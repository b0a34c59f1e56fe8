// Pictures of which one is chosen. They are radio buttons, so that Tab and the arrow keys reach them.
export default {
  render({ model, el }) {
    el.classList.add("diffae-choices");
    el.setAttribute("role", "radiogroup");
    el.setAttribute("aria-label", model.get("description"));
    const caption = Object.assign(document.createElement("div"), { textContent: model.get("description") });
    el.append(caption);
    const name = `diffae-${Math.random()}`; // of this group alone
    const choices = model.get("options").map(([text, value]) => {
      const input = Object.assign(document.createElement("input"), { type: "radio", name });
      input.onchange = () => {
        model.set("value", value);
        model.save_changes();
      };
      const picture = Object.assign(document.createElement("img"), { alt: "" });
      const label = document.createElement("label");
      label.append(input, picture, text);
      el.append(label);
      return { value, input, picture };
    });
    function show() {
      choices.forEach(({ value, input, picture }, index) => {
        input.checked = value === model.get("value");
        input.disabled = model.get("disabled");
        picture.src = model.get("pictures")[index] ?? "";
      });
    }
    model.on("change", show);
    show();
  },
};
