// Line drawings for buttons, 24 by 24. Built as elements, not as markup.

const PATHS: Record<string, string> = {
  undo: "M4 9h10a5 5 0 0 1 0 10h-4 M8 5L4 9l4 4",
  redo: "M20 9H10a5 5 0 0 0 0 10h4 M16 5l4 4-4 4",
  theme: "M20 14.500A8 8 0 1 1 9.500 4 6.500 6.500 0 0 0 20 14.500z",
  move: "M12 3v18 M3 12h18 M9 6l3-3 3 3 M9 18l3 3 3-3 M6 9l-3 3 3 3 M18 9l3 3-3 3",
  click: "M9 9l4.500 11 2-4.500L20 13.500z M5 5l1.500 1.500 M9 3v2 M3 9h2 M13 5l-1 1.200",
  box: "M4 8V4h4 M16 4h4v4 M20 16v4h-4 M8 20H4v-4 M9 9h6v6H9z",
  brush: "M19 4.500c-4 1.500-8.500 6-10 9l2.500 2.500c3-1.500 7.500-6 9-10z M8.500 14c-2.500 0-3 2-3 3.500 0 1-.700 1.500-1.500 2 3 .800 6.500 0 7-3",
  eraser: "M8.500 19.500L3.500 14.500a1.500 1.500 0 0 1 0-2l9-9a1.500 1.500 0 0 1 2 0l6 6a1.500 1.500 0 0 1 0 2l-8 8z M8.500 8.500l7.500 7.500 M8.500 19.500H20",
  polygon: "M12 3.500l8.500 6.500-3.200 10H6.700L3.500 10z",
  lasso: "M12 4c5 0 9 2.500 9 6s-4 6-9 6-9-2.500-9-6 4-6 9-6z M7 15c-2 1-2.500 4 0 4.500 2 .300 2-2-.500-2.500",
  in: "M12 5v14 M5 12h14",
  out: "M5 12h14",
  first: "M6 5v14 M19 5l-9 7 9 7z",
  previous: "M16 5l-9 7 9 7z",
  play: "M7 4.500l12 7.500-12 7.500z",
  pause: "M8 5v14 M16 5v14",
  next: "M8 5l9 7-9 7z",
  last: "M18 5v14 M5 5l9 7-9 7z",
  eye: "M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12z M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
  hidden: "M4 4l16 16 M9.500 5.800A9 9 0 0 1 12 5.500c6 0 9.500 6.500 9.500 6.500a17 17 0 0 1-3 3.700 M6 7.500A17 17 0 0 0 2.500 12S6 18.500 12 18.500a9 9 0 0 0 4-1",
  remove: "M5 7h14 M10 7V4.500h4V7 M7 7l.800 12.500h8.400L17 7",
};

export function icon(name: string): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
