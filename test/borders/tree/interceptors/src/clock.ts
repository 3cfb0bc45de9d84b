// room: interceptors/src/{errors,clock,limits,log}
import './errors.js'; // refused: noRestrictedImports

export const wallMs = (): number => Date.now();
