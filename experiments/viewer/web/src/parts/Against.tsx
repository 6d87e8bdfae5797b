import { api, nameOf, to } from '../lib/routes'
import { Link } from '../lib/router'
import { useAsk } from '../lib/source'
import type { DiffPage } from '../records'
import { Chars, Problems, Verdict, Waiting } from './Basics'
import { DiffView } from './DiffView'

/** A branch beside its parent: outcomes, then the turns that differ. */
export function Against({ run, position, select }: { run: string; position: number; select: (id: string) => void }) {
  const { data, problem, again } = useAsk<DiffPage>(api.diff(run, position), (key) => key === run)
  if (data === null) return <div className="against"><Waiting problem={problem} what="the parent" again={again} /></div>
  const differing = data.turns.filter((turn) => !turn.same)
  const same = data.turns.length - differing.length
  const { fork } = data
  return (
    <div className="against">
      <Problems problems={data.problems} />
      <p>Forked at <button className="linklike" onClick={() => select(fork.turn)}><Chars text={fork.turn} /></button>: <Chars text={fork.changes.join('; ')} /></p>
      <table className="outcomes">
        <tbody>
          <tr><th scope="row"><Link to={to.episode(fork.run, fork.position)}><Chars text={nameOf(fork.run)} /></Link></th><td><Verdict status={data.parent_status} /></td><td><Chars text={data.parent_outcome} /></td></tr>
          <tr><th scope="row">this branch</th><td><Verdict status={data.branch_status} /></td><td><Chars text={data.branch_outcome} /></td></tr>
        </tbody>
      </table>
      <p className="quiet">{same} {same === 1 ? 'turn is' : 'turns are'} the same, {differing.length} differ</p>
      {differing.map((turn) => (
        <section key={turn.id} className="pair">
          <h3><button className="linklike" onClick={() => select(turn.id)}><Chars text={turn.id} /></button> {turn.changed.map((what) => <span key={what} className="tag"><Chars text={what} /></span>)}</h3>
          {turn.parent && turn.branch ? <DiffView before={turn.parent.text} after={turn.branch.text} /> : <p className="quiet">{turn.parent ? 'only in the parent' : 'only in this branch'}</p>}
        </section>
      ))}
    </div>
  )
}
