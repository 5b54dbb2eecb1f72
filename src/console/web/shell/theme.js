// Before the first paint, so that nobody who chose dark sees a flash of light.
// @ts-check
{
  const chosen = localStorage.getItem('palimpsest-theme')
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen
}
