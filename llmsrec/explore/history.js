// Draws data.rows and reports each change as the places that the remaining rows had before.
export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector("ol");
  const places = data.rows.map((_, place) => place);
  const report = (order) => setTriggerValue("order", order);

  const move = (from, to) => {
    if (from === to || to < 0 || to >= places.length) return;
    const order = places.filter((place) => place !== from);
    order.splice(to, 0, from);
    report(order);
  };

  const button = (text, label, action) => {
    const element = document.createElement("button");
    element.textContent = text;
    element.title = label;
    element.setAttribute("aria-label", label);
    element.onclick = action;
    return element;
  };

  const row = ({ title, moved }, place) => {
    const element = document.createElement("li");
    element.draggable = true;
    element.classList.toggle("moved", moved);
    for (const [name, text] of [["place", `${place + 1}`], ["title", title]]) {
      const span = document.createElement("span");
      span.className = name;
      span.textContent = text;
      span.title = text;
      element.append(span);
    }
    element.append(
      button("↑", `move ${title} up`, () => move(place, place - 1)),
      button("↓", `move ${title} down`, () => move(place, place + 1)),
      button("×", `remove ${title}`, () => report(places.filter((other) => other !== place))),
    );
    element.ondragstart = (event) => event.dataTransfer.setData("text/plain", `${place}`);
    element.ondragover = (event) => {
      event.preventDefault();
      element.classList.add("over");
    };
    element.ondragleave = () => element.classList.remove("over");
    element.ondrop = (event) => {
      event.preventDefault();
      element.classList.remove("over");
      move(Number(event.dataTransfer.getData("text/plain")), place);
    };
    return element;
  };

  list.replaceChildren(...data.rows.map(row));
}
