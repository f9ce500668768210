import json, re, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import pysbd, syntok.segmenter as syn, sentencex
from afterword.corpus import split_sentences
D=Path("/work/shared/data")
CASES=[ # | marks where a reader splits
"Dr. Smith met Mrs. Jones at 5 p.m. on Monday. |They talked.",
"It costs $3.50 today. |Tomorrow it will be 4.5 percent more.",
"He asked, \"Are you sure?\" |She nodded.",
"“Stop!” he said. |Nobody did.",
"See Fig. 3 and Eq. 2 for details. |Then read on.",
"Fruit, e.g. apples, i.e. round ones, etc. are sold. |Others are not.",
"The U.S. Senate met in Washington, D.C. |It voted.",
"J. R. R. Tolkien wrote it. |C. S. Lewis read it.",
"Use version 3.11.2 or later. |Earlier ones fail.",
"Visit www.example.com/a.b?c=1 for more. |Then log in.",
"Really?! |Yes! |No... |Well, maybe.",
"Smith et al. (2020) found it. |We agree (see p. 5). |So do others.",
"Motivation\n==========\n\nIt is slow. |We know.".replace("\n\n","\n\n|"),
"1. Open the file.\n|2. Read it.\n|3. Close it.",
"- one item\n|- another item\n|- the last",
"Call os.path.join(a, b). |It returns a str.",
"This line is hard-wrapped by the\nauthor at some width. |The next\none too.",
"The firm, Acme Inc., grew. |Its rival, Foo Ltd. did not.",
"He was born on Jan. 5, 1990 in St. Louis. |He left.",
"She has a Ph.D. in physics. |He has an M.A. from Yale.",
]
def ours(t): return split_sentences(t)
def raw_sx(t): return [(b["start_index"],b["end_index"]) for b in sentencex.get_sentence_boundaries("en",t)]
seg=pysbd.Segmenter(language="en",clean=False,char_span=True)
def sbd(t): return [(s.start,s.end) for s in seg.segment(t)]
def sy(t):
    out=[]
    for p in syn.analyze(t):
        for s in p:
            s=list(s); out.append((s[0].offset, s[-1].offset+len(s[-1].value)))
    return out
def tiles(t,sp): # exact: no gap of text, no overlap; whitespace between spans allowed
    at=0
    for a,b in sp:
        if a<at or t[at:a].strip() or b>len(t): return False
        at=b
    return not t[at:].strip()
def exact(t,sp): return [a for a,_ in sp][:1]==[0] and sp[-1][1]==len(t) and all(x[1]==y[0] for x,y in zip(sp,sp[1:])) and all(t[a:b].strip() for a,b in sp)
def starts(t,sp): return {a+len(t[a:b])-len(t[a:b].lstrip()) for a,b in sp if t[a:b].strip()}
peps=[p.read_text() for p in sorted((D/"peps").glob("*.rst"))]
squad=[json.loads(l)["text"] for l in open(D/"squad_documents.jsonl")]
blank=re.compile(r"\n\s*\n\s*")
for name,f in [("afterword (sentencex by paragraph)",ours),("sentencex, whole text",raw_sx),("pysbd",sbd),("syntok",sy)]:
    row=[name]
    for docs in (peps,squad):
        t0=time.perf_counter(); res=[f(t) for t in docs]; dt=time.perf_counter()-t0
        n=sum(map(len,res)); lens=[b-a for s in res for a,b in s]
        lost=sum(len({m.end() for m in blank.finditer(t) if m.end()<len(t) and t[:m.start()].strip()}-starts(t,s)) for t,s in zip(docs,res))
        row+= [f"{sum(exact(t,s) for t,s in zip(docs,res))}/{len(docs)} tile exactly, {sum(tiles(t,s) for t,s in zip(docs,res))} without loss", f"{n} sentences, longest {max(lens)}, {lost} paragraph starts missed", f"{sum(map(len,docs))/dt/1e6:.2f} Mchar/s"]
    hit=tp=fp=fn=0; wrong=[]
    for i,c in enumerate(CASES,1):
        t=c.replace("|",""); want=set(); k=0
        for part in c.split("|")[:-1]: k+=len(part); want.add(k)
        got=starts(t,f(t))-{0}
        tp+=len(got&want); fp+=len(got-want); fn+=len(want-got)
        hit+=got==want
        if got!=want: wrong.append(f"{i}:{'+'+str(len(got-want)) if got-want else ''}{'-'+str(len(want-got)) if want-got else ''}")
    row+= [f"{hit}/20 by hand, boundaries +{fp} -{fn} of {tp+fn}; wrong {' '.join(wrong)}"]
    print(" | ".join(row))
total=sum(len(blank.findall(t.strip())) for t in peps); print("blank-line gaps in peps", total)
