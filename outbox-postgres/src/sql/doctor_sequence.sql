-- Caller: doctor. Locks: none. Index: none.
select s.seqincrement, s.seqcache, s.seqcycle, a.attidentity = 'a'
  from pg_sequence s
 cross join pg_attribute a
 where s.seqrelid = '{schema_in_text}.message_seq'::regclass
   and a.attrelid = '{schema_in_text}.message'::regclass and a.attname = 'seq'
