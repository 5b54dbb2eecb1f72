// The default theme without its web fonts: pages use the fonts of the reader's machine.
import Theme from 'vitepress/theme-without-fonts'
import './style.css'

export default Theme
