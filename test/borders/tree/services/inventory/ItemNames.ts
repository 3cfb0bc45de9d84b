// room: none; refused: useFilenamingConvention
export const names = 1;
