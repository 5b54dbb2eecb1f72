import { spawnSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { basename } from 'node:path'
import { platform } from 'node:process'

/**
 * What takes seconds gives way to whoever waits for an answer: by niceness, and where chrt is, by a policy that any other thread preempts at once.
 * Under niceness alone the reader's threads, which wait for each other many times an answer, wait for this one's turn to end as well.
 */
const NICENESS = 10

/** Lowers the thread that calls this, and those that it starts from then on. */
export function giveWay(): void {
  // On Linux a thread has a priority of its own, and 0 is this one (setpriority(2), "C library/kernel differences"); elsewhere it is the process.
  if (platform !== 'linux') return
  setPriority(0, NICENESS)
  spawnSync('chrt', ['--idle', '--pid', '0', basename(readlinkSync('/proc/thread-self'))])
}
