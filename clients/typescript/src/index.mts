/** The same module for `import`: one copy of each class, whichever way it is loaded. */

export * from "./index.js";
