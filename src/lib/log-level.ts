/**
 * How severe a message is, by pino's names; apart from `log.ts`, which loads pino.
 */

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
