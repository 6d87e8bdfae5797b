import { defineConfig } from 'vitest/config'

// `source` looks for an exported file's data when it is loaded.
export default defineConfig({ test: { setupFiles: ['src/tests/no-page.ts'] } })
