import react from '@vitejs/plugin-react'
import { createHash } from 'node:crypto'
import { defineConfig, type Plugin } from 'vite'
import { viteSingleFile } from 'vite-plugin-singlefile'

const out = process.env.PAGES ?? '../static'

// `npm run build` makes the pages that the server ships; `--mode standalone` one file that needs no server.
export default defineConfig(({ mode }) => ({
  plugins: mode === 'standalone' ? [react(), viteSingleFile({ removeViteModuleLoader: true }), sealed()] : [react()],
  build: {
    outDir: out,
    emptyOutDir: mode !== 'standalone',
    target: 'es2022',
    chunkSizeWarningLimit: 2500,
    modulePreload: { polyfill: false },
    // What of others is in the pages, under which terms.
    license: { fileName: 'licenses.md' },
    ...(mode === 'standalone' ? { rolldownOptions: { input: 'standalone.html' } } : {}),
  },
  server: { proxy: { '/api': process.env.PALAESTRA ?? 'http://127.0.0.1:7600' } },
}))

/** A policy that lets exactly this file's own script and style run: whatever the data holds, it stays data. */
function sealed(): Plugin {
  return {
    name: 'sealed',
    enforce: 'post',
    generateBundle: { order: 'post', handler(_, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type !== 'asset' || !file.fileName.endsWith('.html')) continue
        const html = String(file.source)
        const hashes = (tag: string) =>
          [...html.matchAll(new RegExp(`<${tag}(?: (?!type="application)[^>]*)?>([^]*?)</${tag}>`, 'g'))]
            .map(([, inside]) => `'sha256-${createHash('sha256').update(inside!).digest('base64')}'`)
            .join(' ')
        const policy = `default-src 'none'; script-src ${hashes('script')}; style-src ${hashes('style')}; img-src data:; base-uri 'none'; form-action 'none'`
        file.source = html.replace('<meta name="policy">', () => `<meta http-equiv="Content-Security-Policy" content="${policy}">`)
      }
    } },
  }
}
