// Which classes are there, in which colours? The service says; nothing here repeats it.

/** Classes in the service's order, their colours, and which of them the reader wants to see. */
export class Palette {
  #styles;
  #open;

  constructor(config) {
    this.names = config.classes.map((c) => c.name);
    this.visible = new Set(this.names);
    this.openVisible = true;
    this.#styles = new Map(config.classes.map((c) => [c.name, style(c)]));
    this.#open = style(config.unclassified);
  }

  /** Line and rim of a class as CSS colours; of one that stayed open for `null`. */
  style(name) {
    return this.#styles.get(name) ?? this.#open;
  }

  /** Whether nuclei of a class are shown; `null` for those whose class stayed open. */
  shows(name) {
    return name === null ? this.openVisible : this.visible.has(name);
  }

  /** Names of what is shown, as the service calls them. */
  get shown() {
    return [...this.names.filter((name) => this.visible.has(name)), ...(this.openVisible ? ["unclassified"] : [])];
  }

  /** Show or hide a class. */
  toggle(name, on = !this.shows(name)) {
    if (name === null) this.openVisible = on;
    else if (on) this.visible.add(name);
    else this.visible.delete(name);
  }

  /** Show all, or none. */
  toggleAll(on) {
    this.visible = new Set(on ? this.names : []);
    this.openVisible = on;
  }

  /** Whether nothing is hidden. */
  get complete() {
    return this.visible.size === this.names.length && this.openVisible;
  }
}

function style({ colour, rim }) {
  const [red, green, blue, alpha] = rim;
  return { line: `rgb(${colour.join(" ")})`, rim: `rgb(${red} ${green} ${blue} / ${alpha / 255})` };
}
