import '@xyflow/react/dist/base.css'
import 'uplot/dist/uPlot.min.css'
import './styles/base.css'
import './styles/pages.css'
import './styles/episode.css'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './App'
import { applyTheme } from './lib/theme'

applyTheme()
createRoot(document.getElementById('root')!).render(<StrictMode><App /></StrictMode>)
