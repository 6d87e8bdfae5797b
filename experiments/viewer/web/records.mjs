// src/records.ts from schema.json, which `python -m experiments.viewer.schema` prints: never written by hand.
import { compile } from 'json-schema-to-typescript'
import { readFileSync, writeFileSync } from 'node:fs'

const { schemas } = JSON.parse(readFileSync('schema.json', 'utf8')).components

/** JSON Schema 2020's tuples and references as the compiler knows them. */
function older(node) {
  if (Array.isArray(node)) return node.map(older)
  if (node === null || typeof node !== 'object') return node
  const { prefixItems, ...rest } = node
  if (typeof rest.title === 'string') delete rest.title
  const made = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, older(value)]))
  if (prefixItems) Object.assign(made, { items: older(prefixItems), additionalItems: false })
  if (made.$ref) made.$ref = made.$ref.replace('#/components/schemas/', '#/$defs/')
  return made
}

const $defs = older(schemas)
for (const record of Object.values($defs)) if (record.type === 'object') record.additionalProperties = false
const source = await compile({ $defs }, 'Root', {
  additionalProperties: false,
  unreachableDefinitions: true,
  bannerComment: '// Generated from the records of experiments/viewer by records.mjs.',
  format: false,
})
writeFileSync('src/records.ts', source.replace(/export interface Root \{[^}]*\}\n/, '').replace(/ \* \n \* This interface was referenced by[^]*?\n \*\//g, ' */').replace(/\/\*\*\n \* This interface was referenced by[^]*?\*\/\n/g, ''))
