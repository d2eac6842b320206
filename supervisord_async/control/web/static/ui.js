// The one place that knows which libraries draw the page.
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { render };
export { Component } from "./vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "./vendor/hooks.js";
export const html = htm.bind(h);
