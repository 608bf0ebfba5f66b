/** `html`: markup as vnodes. What is put into it becomes text, never markup. */
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
