package journal

// BeginOld appends an intent as versions without MaxIntent did.
func (j *Journal) BeginOld(order uint64, payload []byte) (Intent, error) {
	in := Intent{j.intents.Add(1)}
	r := record{kind: kindIntent, intent: in.id, order: order, payload: payload}
	s := j.streams[Pushes]
	s.tail.Lock()
	defer s.tail.Unlock()
	return in, s.put(&batch{buf: r.encode(nil)})
}
