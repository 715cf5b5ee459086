// What every binding proves; the numbers are in ../fixture.json, made by the library's reference backend. Run by Mono here:
//     mcs -unsafe -out:tests.exe Declarations.cs Qlora.cs Tests.cs && LD_LIBRARY_PATH=... mono tests.exe BINDINGS_FOLDER
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using Qlora;
using Qlora.Native;

static class Tests
{
    static string folder;

    // A file of plain JSON, asked by the names of its keys.
    sealed class Fixture
    {
        readonly string text;
        internal Fixture(string name) { text = File.ReadAllText(Path.Combine(folder, name)); }
        string After(string key)
        {
            string mark = "\"" + key + "\": ";
            return text.Substring(text.IndexOf(mark, StringComparison.Ordinal) + mark.Length);
        }
        internal string Word(string key) { return After(key).Split('"')[1]; }
        internal double Number(string key) { return Parse(After(key).Split(',', '\n', '}')[0]); }
        internal int Integer(string key) { return (int)Number(key); }
        internal double[] Numbers(string key) { return After(key).Split('[', ']')[1].Split(',').Select(Parse).ToArray(); }
        internal float[] Floats(string key) { return Numbers(key).Select(number => (float)number).ToArray(); }
        static double Parse(string number) { return double.Parse(number.Trim(), CultureInfo.InvariantCulture); }
        internal Weight Weight(Context context) { return context.Quantize(Word("format"), Integer("rows"), Integer("cols"), Floats("weights")); }
    }

    static void Check(bool condition, string what) { if (!condition) throw new Exception(what); }

    static T Throws<T>(Action action) where T : Exception
    {
        try { action(); }
        catch (T exception) { return exception; }
        throw new Exception("no " + typeof(T).Name);
    }

    // ||found - expected|| / ||expected||
    static double Distance(IList<double> found, double[] expected)
    {
        return Math.Sqrt(expected.Select((value, i) => (found[i] - value) * (found[i] - value)).Sum() / expected.Sum(value => value * value));
    }

    static void VersionIsThatOfTheDeclarations()
    {
        Check(Context.Version == new Fixture("qlora.json").Word("version"), "version " + Context.Version);
    }

    static void AnErrorHasItsStatusAndSaysWhy()
    {
        using (var context = new Context())
        using (var weight = new Fixture("fixture.json").Weight(context))
        using (var x = context.Zeros(weight.Cols))
        using (var y = context.Zeros(1))
        {
            var exception = Throws<QloraException>(() => weight.MatMul(x, 1, y));
            Check(exception.Status == Api.QLORA_ERROR_SHAPE, "status " + exception.Status);
            Check(exception.Message.Contains("qlora_weight_matmul: y"), exception.Message);
        }
        Check(Throws<QloraException>(() => new Context((Backend)77)).Message.Contains("qlora_context_create"), "no name of the call");
    }

    static void ALogReceivesLinesAndWhatItThrowsComesOut()
    {
        var fixture = new Fixture("fixture.json");
        var lines = new List<string>();
        using (var context = new Context(Backend.Cpu, lines.Add))
        using (var weight = fixture.Weight(context))
        using (var one = context.Zeros(1))
            Throws<QloraException>(() => weight.MatMul(one, 1, one));
        Check(lines.Count == 1 && lines[0].Contains("qlora_weight_matmul"), string.Join("; ", lines));

        using (var context = new Context(Backend.Cpu, line => { throw new KeyNotFoundException(line); }))
        using (var weight = fixture.Weight(context))
        using (var one = context.Zeros(1))
        using (var x = context.Buffer(fixture.Floats("x")))
        using (var y = context.Zeros(fixture.Numbers("y").Length))
        {
            Check(Throws<KeyNotFoundException>(() => weight.MatMul(one, 1, one)).Message.Contains("qlora_weight_matmul"), "another exception");
            weight.MatMul(x, fixture.Integer("tokens"), y); // and all goes on
        }
    }

    static void QuantizeAndMatMul()
    {
        var fixture = new Fixture("fixture.json");
        double[] expected = fixture.Numbers("y");
        foreach (Backend backend in new[] { Backend.Reference, Backend.Cpu })
            using (var context = new Context(backend))
            using (var weight = fixture.Weight(context))
            using (var x = context.Buffer(fixture.Floats("x")))
            using (var y = context.Zeros(expected.Length))
            {
                weight.MatMul(x, fixture.Integer("tokens"), y);
                double distance = Distance(y.Read().Select(value => (double)value).ToArray(), expected);
                Check(distance <= fixture.Number("matmul_tolerance"), backend + " is off by " + distance);
            }
    }

    static void FiveStepsOfTraining()
    {
        var fixture = new Fixture("fixture.json");
        float[] goal = fixture.Floats("goal");
        int tokens = fixture.Integer("tokens");
        foreach (Backend backend in new[] { Backend.Reference, Backend.Cpu })
            using (var context = new Context(backend))
            using (var weight = fixture.Weight(context))
            using (var adapter = new Adapter(weight, fixture.Integer("rank"), (float)fixture.Number("scale"), fixture.Floats("a")))
            using (var x = context.Buffer(fixture.Floats("x")))
            using (var y = context.Zeros(goal.Length))
            {
                var losses = new List<double>();
                for (int step = 0; step < 5; step++)
                {
                    adapter.Forward(x, tokens, y);
                    float[] dy = y.Read();
                    double loss = 0;
                    for (int i = 0; i < dy.Length; i++) { dy[i] -= goal[i]; loss += (double)dy[i] * dy[i] / 2; }
                    losses.Add(loss);
                    y.Write(dy);
                    adapter.Backward(x, tokens, y);
                    adapter.Step((float)fixture.Number("learning_rate"));
                }
                Check(Distance(losses, fixture.Numbers("losses")) <= fixture.Number("tolerance"), backend + ": " + string.Join(" ", losses));
            }
    }

    static void ContextsComeAndGo()
    {
        for (int i = 0; i < 1000; i++)
            using (var context = new Context()) Check(context.Name != "", "no name");
    }

    static void ContextsOutliveTheirBuffers()
    {
        Qlora.Buffer buffer;
        using (var context = new Context()) buffer = context.Zeros(4);
        buffer.Dispose(); // the last reference: now the context goes
        Throws<ObjectDisposedException>(() => buffer.Read());
    }

    static int Main(string[] arguments)
    {
        folder = arguments[0];
        int failures = 0;
        foreach (Action test in new Action[] { VersionIsThatOfTheDeclarations, AnErrorHasItsStatusAndSaysWhy, ALogReceivesLinesAndWhatItThrowsComesOut, QuantizeAndMatMul,
                                               FiveStepsOfTraining, ContextsComeAndGo, ContextsOutliveTheirBuffers })
        {
            try { test(); Console.WriteLine("ok      " + test.Method.Name); }
            catch (Exception exception) { failures++; Console.WriteLine("FAILED  " + test.Method.Name + ": " + exception); }
        }
        return failures == 0 ? 0 : 1;
    }
}
