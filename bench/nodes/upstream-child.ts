/** The scripted upstream in a process of its own, so that its time counts for no gateway. Prints its address. */
import { startUpstream } from '../../test/support/stand-ins/scripted-upstream.ts'

const { url } = await startUpstream({ words: 20, delayMs: 0 })
console.log(url)
