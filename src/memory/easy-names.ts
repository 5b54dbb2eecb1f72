/**
 * Names that texts hold without meaning them: an edit about "Time" or "It" is found in every other question, and only the rest of the
 * question can keep it out. Pointed out before a batch lands; nothing is refused for it. Word list ours, English.
 */
import { words } from '../edit/words.ts'

const COMMON = new Set(
  `a about above across action after again against age ago air all almost alone along already also always am among an and animal animals
  another answer any anyone anything are area army around art as ask at away baby back bad ball band bank bar base be bear beautiful because
  bed been before began begin behind being believe below best better between beyond big bill bird birds black blood blue boat body book books
  both box boy boys bread break bring brother brothers brown build building business but buy by call called came camp can car card care carry
  case cat cause center century chance change character child children choice choose church circle city class clean clear close cloud club
  cold color colour come common community company complete control cook cool could count country course court cover cross crowd cup cut dance
  dark data date daughter day days dead death deal deep design did die different dinner do doctor does dog dogs door down dr dream dreams drink
  drive drop dry during each ear early earth east easy eat edge education egg eight either end energy enough even evening ever every everyone
  everything example experience eye eyes face fact fall family famous far farm fast father fear feel few field fight figure fill film final
  find fine fire first fish five floor flower fly follow food foot for force forest forever form four free freedom friend friends from front
  full fun future game games garden general get gift girl girls give glass go god gold gone good government great green ground group grow
  guess guide gun had hair half hall hand hands happen happy hard has hat have he head health hear heart heat heaven heavy held hell hello
  help her here hero heroes high hill him his history hit hold hole home hope horse hospital hot hotel hour house how human hundred hunter i
  ice idea if image important in inside instead interest into iron is island issue it its job join journey just keep key kid kids kill kind
  king kiss kitchen knew know known lady lake land language large last late later laugh law lay lead leader learn least leave left legend less
  let letter letters level lie life light like line list listen little live lives local long look lord lose lost lot love low machine made
  magic main make man manager many map march mark market master matter may maybe me mean media meet member memory men message middle might
  mile mind minute mirror miss modern moment money month moon more morning most mother mountain mouth move movie mr mrs much music must my
  name nation nature near need network never new news next nice night nine no nobody north not nothing now number of off office official often
  oh oil old on once one only open or orange order other others our out outside over own page paint paper parent park part party pass past
  path pay peace people perfect person phone photo picture piece place plan planet plant play player please point police policy poor popular
  position possible power present president press pretty price prince princess problem process product program project public pull purple
  push put queen question questions quick quiet race radio rain reach read ready real reason red remember rest result return rich ride right
  ring rise river road rock role room rose round rule rules run safe said same sand save saw say school science sea season second secret see
  seem self sell send sense series service set seven several shadow shape share she ship shoot shop short should show side sign silence silver
  simple since sing single sister sisters sit six size skin sky sleep slow small smile snow so society soldier some someone something
  sometimes son song songs soon sorry soul sound south space speak special spirit sport spring staff stage stand star stars start state
  station stay step still stone stop store stories storm story stranger street strong student study style such summer sun sure surface system
  table take talk tall teach teacher team tell ten test than thank that the their them then there these they thing things think third this
  those though thousand three through time times tiny to today together tomorrow tonight too took top touch toward tower town trade train
  travel tree trip trouble true trust truth try turn two type under understand unit university until up us use user valley value very video
  view village voice wait walk wall want war warm was watch water wave way we wear weather week weight well went were west what wheel when
  where which while white who whole why wide wife wild will win wind window wine wing winter wish with within without woman women wonder
  wood word words work worker world worth would write wrong year years yellow yes yesterday yet you young your youth zero`.split(
    /\s+/,
  ),
)
const SHORT_CHARS = 2
/** Everyday words that are met together now and then; more of them only as a name. */
const COMMON_WORDS = 2
const ARTICLES = new Set(['the', 'a', 'an'])
/** Of scripts in which a character is a word. */
const DENSE = /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Hangul}]/u

/** Why the name is easily found where it is not meant; undefined when it is not. */
export function easyName(name: string): 'common' | 'short' | undefined {
  const parts = words(name)
  if (name === '') return undefined // it names none
  const letters = parts.join('')
  if (letters.length <= (DENSE.test(letters) ? 1 : SHORT_CHARS)) return 'short'
  const everyday = (part: string) => COMMON.has(part) || COMMON.has(part.replace(/s$/, '')) || /^\p{N}+$/u.test(part)
  const few = parts.filter((part) => !ARTICLES.has(part)).length <= COMMON_WORDS
  return few && parts.every(everyday) ? 'common' : undefined
}
